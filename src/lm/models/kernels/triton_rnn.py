"""The Elman network as Triton kernels; contract and design in `triton_cells`."""

# ruff: noqa: N803  (compile-time arguments are in capitals, as Triton has it)

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.kernels.triton_common import (
    geometry,
    multiply,
    pad_columns,
    product,
    recurrent_gradient,
    store_operand,
    tanh,
)


@triton.jit(do_not_specialize=["t"])
@no_type_check
def _forward(
    t, batch, states, weight, operands, h_last,
    H: tl.constexpr, K: tl.constexpr, NONLINEARITY: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Step t of a block of units and streams: operands[t] → operands[t+1].

    `operands` is h in the dtype of the product. states[t] holds the input products with
    the bias; with SAVE the unrounded h_t replaces them.
    """
    unit = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = t.to(tl.int64) * batch
    h_live = (row < batch)[:, None]
    w_live = (unit < H)[None, :]
    k = tl.arange(0, BLOCK_K)
    h_tile = operands + first * K + row[:, None] * K + k[None, :]
    w_tile = weight + unit[None, :] * K + k[:, None]
    a = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
    for _ in range(0, K, BLOCK_K):
        h = tl.load(h_tile, mask=h_live, other=0.0)
        w = tl.load(w_tile, mask=w_live, other=0.0)
        a = multiply(h, w, a)
        h_tile += BLOCK_K
        w_tile += BLOCK_K

    live = h_live & w_live
    states += first * H
    own = row[:, None] * H + unit[None, :]
    a += tl.load(states + own, mask=live, other=0.0)
    if NONLINEARITY == "tanh":
        h = tanh(a)
    elif NONLINEARITY == "sigmoid":
        h = tl.sigmoid(a)
    else:
        h = tl.where(a < 0, 0.0, a)  # unlike maximum it passes NaN on
    tl.store(h_last + own, h, mask=live)
    operand = operands + (first + batch) * K + row[:, None] * K + unit[None, :]
    store_operand(operand, h, live)
    if SAVE:
        tl.store(states + own, h, mask=live)


@triton.jit(do_not_specialize=["t", "last"])
@no_type_check
def _backward(
    t, last, batch, states, weight, dy, dh_last, dinput,
    H: tl.constexpr, K: tl.constexpr, NONLINEARITY: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Step t of a block: dinput[t+1] → dinput[t], the gradient of σ's argument."""
    unit = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = t.to(tl.int64) * batch
    live = (row < batch)[:, None] & (unit < H)[None, :]
    following = dinput + (first + batch) * K
    dh = recurrent_gradient(following, weight, row, unit, batch, H, K, BLOCK_B, BLOCK_H, BLOCK_K)
    own = row[:, None] * H + unit[None, :]
    dh += tl.load(dy + first * H + own, mask=live, other=0.0).to(tl.float32)
    if t == last:
        dh += tl.load(dh_last + own, mask=live, other=0.0)
    h = tl.load(states + first * H + own, mask=live, other=0.0)
    if NONLINEARITY == "tanh":
        da = dh * (1 - h * h)
    elif NONLINEARITY == "sigmoid":
        da = dh * h * (1 - h)
    else:
        da = tl.where(h <= 0, 0.0, dh)
    out = dinput + first * K + row[:, None] * K + unit[None, :]
    store_operand(out, da, live)


class RNNFunction(torch.autograd.Function):
    """`triton_cells.rnn` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "T B I"],
        h: Float[Tensor, "B H"],
        weight_ih: Float[Tensor, "H I"],
        weight_hh: Float[Tensor, "H H"],
        bias: Float[Tensor, " H"] | None,
        nonlinearity: str,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        shape = geometry(x, weight_hh)
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        ctx.shape, ctx.x_dtype, ctx.nonlinearity = shape, x.dtype, nonlinearity
        x = x.to(weight_ih.dtype)
        states = product(x.flatten(0, 1), weight_ih.t(), torch.float32)
        if bias is not None:
            states += bias
        inner = shape.padded(hidden)
        # Zeros: the recurrent product also sums over the padding.
        operands = weight_hh.new_zeros(steps + 1, batch, inner)
        operands[0, :, :hidden] = h
        h_last = states.new_empty(batch, hidden)
        weight = pad_columns(weight_hh, inner)
        save = training and any(ctx.needs_input_grad)
        for t in range(steps):
            _forward[shape.grid](
                t, batch, states, weight, operands, h_last,
                NONLINEARITY=nonlinearity, SAVE=save, **shape.constants(inner),
            )  # fmt: skip
        if save:
            ctx.save_for_backward(x, weight_ih, weight_hh, states, operands)
        return operands[1:, :, :hidden], h_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, states, operands = ctx.saved_tensors
        shape = ctx.shape
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        inner = shape.padded(hidden)
        # Zeros: after the last step nothing flows back, and the product sums over the padding.
        dinput = weight_hh.new_zeros(steps + 1, batch, inner)
        dy, dh = dy.contiguous(), dh.contiguous()
        weight = pad_columns(weight_hh.t(), inner)
        for t in reversed(range(steps)):
            _backward[shape.grid](
                t, steps - 1, batch, states, weight, dy, dh, dinput,
                NONLINEARITY=ctx.nonlinearity, **shape.constants(inner),
            )  # fmt: skip
        d = dinput[:steps].flatten(0, 1)[:, :hidden]
        h_before = operands[:steps].flatten(0, 1)[:, :hidden]
        needs = ctx.needs_input_grad
        return (
            product(d, weight_ih, ctx.x_dtype).view_as(x) if needs[0] else None,
            product(d[:batch], weight_hh, torch.float32) if needs[1] else None,
            d.t() @ x.flatten(0, 1) if needs[2] else None,
            d.t() @ h_before if needs[3] else None,
            d.sum(0, dtype=torch.float32) if needs[4] else None,
            None,
            None,
        )
