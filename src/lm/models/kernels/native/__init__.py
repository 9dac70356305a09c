"""Kernels in C for the CPU, compiled on the machine where they run; see `kernels.c`."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lm.runtime.native import Library, compiled

_VARIANTS = {torch.float64: "f64", torch.float32: "f32", torch.bfloat16: "bf16"}


@cache
def library() -> Library | None:
    """The compiled kernels; None where they cannot be had."""
    return compiled(Path(__file__).with_name("kernels.c"))


def can_run_on(like: Tensor, operands: torch.dtype | None = None) -> bool:
    """Whether there are compiled kernels for this device, and operands of its dtype or that one."""
    known = (operands or like.dtype) in _VARIANTS
    return like.device.type == "cpu" and known and library() is not None


def call(
    name: str, operands: torch.dtype, numbers: Sequence[int], tensors: Sequence[Tensor | None]
) -> None:
    """A function in the variant for such operands; its structure is numbers, then tensors."""
    kernels = library()
    assert kernels is not None
    kernels(f"{name}_{_VARIANTS[operands]}", numbers, tensors)


@cache
def lanes(real: torch.dtype) -> int:
    """Numbers of this dtype in one vector, the last dimension of blocked buffers."""
    kernels = library()
    assert kernels is not None
    return kernels.number("vector_bytes") // real.itemsize


@cache
def tile_rows() -> int:
    """Streams that are computed together, at the most."""
    kernels = library()
    assert kernels is not None
    return kernels.number("tile_rows")


def check_words(targets: Tensor, vocab_size: int) -> None:
    """C would read and write wherever a target leads.

    Raises:
        IndexError: one is no word.
    """
    low, high = (int(end) for end in targets.aminmax())
    if low < 0 or high >= vocab_size:
        raise IndexError(f"targets from {low} to {high}, but {vocab_size} columns of logits")
