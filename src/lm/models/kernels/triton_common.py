"""What the Triton kernels of all cells share: block sizes, aligned buffers, products, device code.

Both operands of every recurrent product are padded with zeros along the summed dimension, so that
its loop needs no mask and its loads are wide: with H = 650 the rows of the matrix itself would be
aligned to 4 bytes only. The padded copy of the matrix is made once a window.

Device functions carry `no_type_check`: their arguments are Triton's values, which neither mypy nor
the run-time checks of the tests can know.
"""

# ruff: noqa: N803  (compile-time arguments are in capitals, as Triton has it)

from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Triton 3.9's interpreter has two faults in bfloat16, which `multiply` and `store_operand` make up
# for: tl.dot multiplies the integers that hold the numbers, and casts cut off instead of rounding.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


class Blocks(NamedTuple):
    """What a program computes: `units` × `streams` elements of h, `depth` products at a time."""

    streams: int
    units: int
    depth: int


def choose_blocks(batch: int, hidden: int, dtype: torch.dtype) -> Blocks:
    """Block sizes by rule, for an H100 with its 132 multiprocessors.

    A step is a thin product, bound by the latency of reading the matrix from the L2 cache, so the
    matrix is spread over as many programs as possible: 16 units each, the least that every dtype's
    tl.dot takes, until a multiprocessor would get more than two. All streams up to 64 share one
    program, so that the matrix is read once; 64 is what Hopper's tensor instruction takes. A loop
    iteration reads 256 bytes of each row: three stages in flight of 64 rows of h and 4·16 of the
    LSTM's matrix fill 96 KiB of shared memory, and no kernel spills registers.
    """
    streams = 16 if batch <= 16 else 32 if batch <= 32 else 64
    programs = triton.cdiv(hidden, 16) * triton.cdiv(batch, streams)
    return Blocks(streams, 16 if programs <= 2 * 132 else 32, 256 // dtype.itemsize)


class Geometry(NamedTuple):
    """Sizes of a window and how its kernels are launched."""

    steps: int
    batch: int
    hidden: int
    blocks: Blocks

    def padded(self, size: int) -> int:
        """`size` rounded up to whole loop iterations of a recurrent product."""
        return -(-size // self.blocks.depth) * self.blocks.depth

    @property
    def grid(self) -> tuple[int, int]:
        """Programs: blocks of units × blocks of streams."""
        streams, units, _ = self.blocks
        return triton.cdiv(self.hidden, units), triton.cdiv(self.batch, streams)

    def constants(self, inner: int) -> dict[str, Any]:
        """Compile-time arguments; `inner` is the padded length of the summed dimension."""
        return {
            "H": self.hidden,
            "K": inner,
            "BLOCK_B": self.blocks.streams,
            "BLOCK_H": self.blocks.units,
            "BLOCK_K": self.blocks.depth,
            "num_warps": 4,
            "num_stages": 3,
        }


def geometry(x: Float[Tensor, "T B I"], weight_hh: Float[Tensor, "GH H"]) -> Geometry:
    """The geometry of a window, after checks of what a kernel would not notice."""
    steps, batch, hidden = x.shape[0], x.shape[1], weight_hh.shape[1]
    assert steps > 0, "a window has at least one step"
    assert weight_hh.dtype in (torch.float32, torch.bfloat16), weight_hh.dtype
    return Geometry(steps, batch, hidden, choose_blocks(batch, hidden, weight_hh.dtype))


def pad_columns(matrix: Float[Tensor, "R K"], columns: int) -> Float[Tensor, "R P"]:
    """`matrix`, contiguous, with zero columns added."""
    missing = columns - matrix.shape[1]
    return F.pad(matrix, (0, missing)) if missing else matrix.contiguous()


def product(
    a: Float[Tensor, "R K"], b: Float[Tensor, "K C"], dtype: torch.dtype
) -> Float[Tensor, "R C"]:
    """a b in the operands' precision, its sums rounded to `dtype` and not in between."""
    if a.dtype == dtype:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=dtype)
    return a.to(dtype) @ b.to(dtype)


@triton.jit
@no_type_check
def multiply(a, b, acc):
    """acc + a b with float32 accumulation."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
@no_type_check
def store_operand(pointers, x, live):
    """Store float32 for a later product: rounded to the nearest number of the buffer's dtype."""
    if INTERPRETED and pointers.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        x = (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
    tl.store(pointers, x.to(pointers.dtype.element_ty), mask=live)


@triton.jit
@no_type_check
def tanh(x):
    """Of full relative accuracy: a series where 1 − exp(−2|x|) would cancel; no overflow."""
    square = x * x
    series = x * (1 + square * (-1 / 3 + square * (2 / 15 - square * (17 / 315))))
    e = tl.exp(-2 * tl.abs(x))
    magnitude = (1 - e) / (1 + e)
    return tl.where(square < 0.04, series, tl.where(x < 0, -magnitude, magnitude))


@triton.jit
@no_type_check
def recurrent_gradient(
    dgates, weight, row, unit, batch,
    H: tl.constexpr, K: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dgates[row] · weight[unit], summed over all gates: what step t + 1 passes back to h_t."""
    k = tl.arange(0, BLOCK_K)
    d_tile = dgates + row[:, None] * K + k[None, :]
    w_tile = weight + unit[None, :] * K + k[:, None]
    d_live = (row < batch)[:, None]
    w_live = (unit < H)[None, :]
    acc = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
    for _ in range(0, K, BLOCK_K):
        d = tl.load(d_tile, mask=d_live, other=0.0)
        w = tl.load(w_tile, mask=w_live, other=0.0)
        acc = multiply(d, w, acc)
        d_tile += BLOCK_K
        w_tile += BLOCK_K
    return acc
