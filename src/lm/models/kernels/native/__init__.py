"""Kernels in C for the CPU, compiled on the machine where they run; see `kernels.h`."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lm.runtime.native import Library, compiled

_SOURCES = {torch.float64: "f64.c", torch.float32: "f32.c", torch.bfloat16: "bf16.c"}


@cache
def library(operands: torch.dtype) -> Library | None:
    """The compiled kernels for operands of this dtype; None where they cannot be had."""
    return compiled(Path(__file__).with_name(_SOURCES[operands]))


def can_run_on(like: Tensor, operands: torch.dtype | None = None) -> bool:
    """Whether there are compiled kernels for this device, and operands of its dtype or that one."""
    wanted = operands or like.dtype
    return like.device.type == "cpu" and wanted in _SOURCES and library(wanted) is not None


def call(
    name: str, operands: torch.dtype, numbers: Sequence[int], tensors: Sequence[Tensor | None]
) -> None:
    """A function for operands of this dtype; its structure is numbers, then tensors."""
    _loaded(operands)(name, numbers, tensors)


@cache
def lanes(operands: torch.dtype) -> int:
    """Numbers in one vector, the last dimension of blocked buffers; float32 for bf16 operands."""
    return _loaded(operands).number("lanes")


@cache
def tile_rows(operands: torch.dtype) -> int:
    """Streams that are computed together, at the most."""
    return _loaded(operands).number("tile_rows")


def _loaded(operands: torch.dtype) -> Library:
    """The library that `can_run_on` has found."""
    kernels = library(operands)
    assert kernels is not None
    return kernels


def check_words(targets: Tensor, vocab_size: int) -> None:
    """C would read and write wherever a target leads.

    Raises:
        IndexError: one is no word.
    """
    low, high = (int(end) for end in targets.aminmax())
    if low < 0 or high >= vocab_size:
        raise IndexError(f"targets from {low} to {high}, but {vocab_size} columns of logits")
