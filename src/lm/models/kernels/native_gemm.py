"""Products of large matrices in C, summed in full precision: `native/gemm.h`."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from lm.models.kernels import native

# What a core's second cache (512 KiB and more) holds at a time: a panel of B and a block of A.
_PANEL_BYTES = 256 << 10
_BLOCK_BYTES = 192 << 10
# Groups of columns in a panel, as in gemm.h.
_PANEL_GROUPS = 4


class _Plan(NamedTuple):
    """How a product is cut; the fields of gemm.h's structure, in its order."""

    row_parts: int
    column_parts: int
    row_block: int
    inner_block: int
    a_space: int


def multiply(
    a: Tensor,
    b: Tensor,
    out: Tensor,
    *,
    transposed: bool = False,
    add: bool = False,
    factors: Tensor | None = None,
    sums: Tensor | None = None,
) -> None:
    """out (+)= A b, and sums (+)= A factors.

    Args:
        a: A [M, K], or `transposed` Aᵀ [K, M], contiguous; float64, float32 or bf16.
        b: [K, N] with contiguous rows, in float64 or float32; rounded to a's dtype.
        out: [M, N] like b.
        factors, sums: [K] and [M] like b; only with a transposed A.
    """
    (rows, inner), columns = a.shape[::-1] if transposed else a.shape, b.shape[1]
    assert a.is_contiguous()
    assert b.shape == (inner, columns)
    assert out.shape == (rows, columns)
    assert b.stride(1) == out.stride(1) == 1
    assert sums is None or (transposed and factors is not None)
    lanes = native.lanes(a.dtype)
    plan = _plan(rows, columns, inner, a.itemsize, lanes, transposed, torch.get_num_threads())
    a_strides = (1, rows) if transposed else (inner, 1)
    strides = *a_strides, int(transposed), b.stride(0), out.stride(0)
    packed_a = a.new_empty(plan.row_parts * plan.column_parts * plan.a_space)
    packed_b = a.new_empty(_ceil(columns, lanes) * lanes * plan.inner_block)
    tensors = a, b, out, factors, sums, packed_a, packed_b
    native.call("gemm", a.dtype, (rows, columns, inner, *strides, int(add), *plan), tensors)


@cache
def _plan(
    rows: int, columns: int, inner: int, itemsize: int, lanes: int, packs_a: bool, threads: int
) -> _Plan:
    """The threads' grid with the shortest longest part, and blocks that fit the caches."""
    row_groups, column_groups = _ceil(rows, lanes), _ceil(columns, lanes)
    row_parts = min(
        (n for n in range(1, threads + 1) if threads % n == 0),
        key=lambda n: _ceil(row_groups, n) * _ceil(column_groups, threads // n),
    )
    blocks = _ceil(inner * itemsize * lanes * _PANEL_GROUPS, _PANEL_BYTES)
    inner_block = _ceil(_ceil(inner, blocks), 2) * 2  # even, as bf16 comes in pairs
    row_block = _ceil(row_groups, row_parts) * lanes
    if packs_a:
        row_block = min(row_block, max(1, _BLOCK_BYTES // (inner_block * itemsize * lanes)) * lanes)
    a_space = row_block * inner_block if packs_a else 0
    return _Plan(row_parts, threads // row_parts, row_block, inner_block, a_space)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
