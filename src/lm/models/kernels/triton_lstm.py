"""The LSTM as Triton kernels; contract and design in `triton_cells`."""

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
    t, batch, gates, weight, h_steps, c_steps, h_last,
    H: tl.constexpr, K: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Step t of a block of units and streams: h_steps[t], c_steps[t] → h_steps[t+1], c_steps[t+1].

    gates[t] holds the input products with the bias; with SAVE the gates themselves replace them.
    """
    unit = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = t.to(tl.int64) * batch
    h_live = (row < batch)[:, None]
    w_live = (unit < H)[None, :]
    k = tl.arange(0, BLOCK_K)
    h_tile = h_steps + first * K + row[:, None] * K + k[None, :]
    w_tile = weight + unit[None, :] * K + k[:, None]
    i = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
    f, g, o = i, i, i
    for _ in range(0, K, BLOCK_K):
        h = tl.load(h_tile, mask=h_live, other=0.0)
        w = tl.load(w_tile, mask=w_live, other=0.0)
        i = multiply(h, w, i)
        w = tl.load(w_tile + H * K, mask=w_live, other=0.0)
        f = multiply(h, w, f)
        w = tl.load(w_tile + 2 * H * K, mask=w_live, other=0.0)
        g = multiply(h, w, g)
        w = tl.load(w_tile + 3 * H * K, mask=w_live, other=0.0)
        o = multiply(h, w, o)
        h_tile += BLOCK_K
        w_tile += BLOCK_K

    live = h_live & w_live
    gates += first * 4 * H
    own = row[:, None] * 4 * H + unit[None, :]
    i = tl.sigmoid(i + tl.load(gates + own, mask=live, other=0.0))
    f = tl.sigmoid(f + tl.load(gates + own + H, mask=live, other=0.0))
    g = tanh(g + tl.load(gates + own + 2 * H, mask=live, other=0.0))
    o = tl.sigmoid(o + tl.load(gates + own + 3 * H, mask=live, other=0.0))
    state = row[:, None] * H + unit[None, :]
    c = f * tl.load(c_steps + first * H + state, mask=live, other=0.0) + i * g
    h = o * tanh(c)
    tl.store(c_steps + (first + batch) * H + state, c, mask=live)
    tl.store(h_last + state, h, mask=live)
    h_next = h_steps + (first + batch) * K + row[:, None] * K + unit[None, :]
    store_operand(h_next, h, live)
    if SAVE:
        tl.store(gates + own, i, mask=live)
        tl.store(gates + own + H, f, mask=live)
        tl.store(gates + own + 2 * H, g, mask=live)
        tl.store(gates + own + 3 * H, o, mask=live)


@triton.jit(do_not_specialize=["t", "last"])
@no_type_check
def _backward(
    t, last, batch, gates, c_steps, weight, dy, dh_last, dc_carry, dgates,
    H: tl.constexpr, K: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Step t of a block: dgates[t+1] and dc_carry → dgates[t] and dc_carry for step t − 1."""
    unit = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = t.to(tl.int64) * batch
    live = (row < batch)[:, None] & (unit < H)[None, :]
    dh = recurrent_gradient(
        dgates + (first + batch) * K, weight, row, unit, batch, H, K, BLOCK_B, BLOCK_H, BLOCK_K
    )
    state = row[:, None] * H + unit[None, :]
    dh += tl.load(dy + first * H + state, mask=live, other=0.0).to(tl.float32)
    if t == last:
        dh += tl.load(dh_last + state, mask=live, other=0.0)

    own = gates + first * 4 * H + row[:, None] * 4 * H + unit[None, :]
    i = tl.load(own, mask=live, other=0.0)
    f = tl.load(own + H, mask=live, other=0.0)
    g = tl.load(own + 2 * H, mask=live, other=0.0)
    o = tl.load(own + 3 * H, mask=live, other=0.0)
    c_before = tl.load(c_steps + first * H + state, mask=live, other=0.0)
    c = tanh(tl.load(c_steps + (first + batch) * H + state, mask=live, other=0.0))
    dc = tl.load(dc_carry + state, mask=live, other=0.0) + dh * o * (1 - c * c)
    tl.store(dc_carry + state, dc * f, mask=live)
    out = dgates + first * K + row[:, None] * K + unit[None, :]
    store_operand(out, dc * g * i * (1 - i), live)
    store_operand(out + H, dc * c_before * f * (1 - f), live)
    store_operand(out + 2 * H, dc * i * (1 - g * g), live)
    store_operand(out + 3 * H, dh * c * o * (1 - o), live)


class LSTMFunction(torch.autograd.Function):
    """`triton_cells.lstm` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "T B I"],
        h: Float[Tensor, "B H"],
        c: Float[Tensor, "B H"],
        weight_ih: Float[Tensor, "4*H I"],
        weight_hh: Float[Tensor, "4*H H"],
        bias: Float[Tensor, " 4*H"] | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = geometry(x, weight_hh)
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        ctx.shape, ctx.x_dtype = shape, x.dtype
        x = x.to(weight_ih.dtype)
        gates = product(x.flatten(0, 1), weight_ih.t(), torch.float32)
        if bias is not None:
            gates += bias
        inner = shape.padded(hidden)
        # Zeros: the recurrent product also sums over the padding.
        h_steps = weight_hh.new_zeros(steps + 1, batch, inner)
        h_steps[0, :, :hidden] = h
        c_steps = gates.new_empty(steps + 1, batch, hidden)
        c_steps[0] = c
        h_last = torch.empty_like(c_steps[0])
        weight = pad_columns(weight_hh, inner)
        save = training and any(ctx.needs_input_grad)
        for t in range(steps):
            _forward[shape.grid](
                t, batch, gates, weight, h_steps, c_steps, h_last,
                SAVE=save, **shape.constants(inner),
            )  # fmt: skip
        if save:
            ctx.save_for_backward(x, weight_ih, weight_hh, gates, h_steps, c_steps)
        # A view of c_steps would keep the window alive for as long as its final state.
        return h_steps[1:, :, :hidden], h_last, c_steps[steps].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, h_steps, c_steps = ctx.saved_tensors
        shape = ctx.shape
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        inner = shape.padded(4 * hidden)
        # Zeros: after the last step nothing flows back, and the product sums over the padding.
        dgates = weight_hh.new_zeros(steps + 1, batch, inner)
        dy, dh = dy.contiguous(), dh.contiguous()
        dc = dc.clone(memory_format=torch.contiguous_format)  # the kernel writes to it
        weight = pad_columns(weight_hh.t(), inner)
        for t in reversed(range(steps)):
            _backward[shape.grid](
                t, steps - 1, batch, gates, c_steps, weight, dy, dh, dc, dgates,
                **shape.constants(inner),
            )  # fmt: skip
        d = dgates[:steps].flatten(0, 1)[:, : 4 * hidden]
        h_before = h_steps[:steps].flatten(0, 1)[:, :hidden]
        needs = ctx.needs_input_grad
        return (
            product(d, weight_ih, ctx.x_dtype).view_as(x) if needs[0] else None,
            product(d[:batch], weight_hh, torch.float32) if needs[1] else None,
            dc,
            d.t() @ x.flatten(0, 1) if needs[3] else None,
            d.t() @ h_before if needs[4] else None,
            d.sum(0, dtype=torch.float32) if needs[5] else None,
            None,
        )
