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


def can_run_on(like: Tensor) -> bool:
    """Whether there are compiled kernels for operands like this."""
    return like.device.type == "cpu" and like.dtype in _VARIANTS and library() is not None


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
