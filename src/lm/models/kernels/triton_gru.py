"""The GRU as Triton kernels; contract and design in `triton_cells`."""

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
    t, batch, gates, weight, bias_n, operands, h_steps, recurrent_n,
    H: tl.constexpr, K: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Step t of a block of units and streams: h_steps[t] → h_steps[t+1].

    `operands` is h_steps in the dtype of the product. gates[t] holds the input products and all
    biases but b'_n; with SAVE the gates themselves replace them, and recurrent_n[t] takes
    U_n h + b'_n.
    """
    unit = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = t.to(tl.int64) * batch
    h_live = (row < batch)[:, None]
    w_live = (unit < H)[None, :]
    k = tl.arange(0, BLOCK_K)
    h_tile = operands + first * K + row[:, None] * K + k[None, :]
    w_tile = weight + unit[None, :] * K + k[:, None]
    r = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
    z, n_h = r, r
    for _ in range(0, K, BLOCK_K):
        h = tl.load(h_tile, mask=h_live, other=0.0)
        w = tl.load(w_tile, mask=w_live, other=0.0)
        r = multiply(h, w, r)
        w = tl.load(w_tile + H * K, mask=w_live, other=0.0)
        z = multiply(h, w, z)
        w = tl.load(w_tile + 2 * H * K, mask=w_live, other=0.0)
        n_h = multiply(h, w, n_h)
        h_tile += BLOCK_K
        w_tile += BLOCK_K

    live = h_live & w_live
    gates += first * 3 * H
    own = row[:, None] * 3 * H + unit[None, :]
    state = row[:, None] * H + unit[None, :]
    if bias_n is not None:
        n_h += tl.load(bias_n + unit, mask=unit < H, other=0.0).to(tl.float32)[None, :]
    r = tl.sigmoid(r + tl.load(gates + own, mask=live, other=0.0))
    z = tl.sigmoid(z + tl.load(gates + own + H, mask=live, other=0.0))
    n = tanh(r * n_h + tl.load(gates + own + 2 * H, mask=live, other=0.0))
    h = (1 - z) * n + z * tl.load(h_steps + first * H + state, mask=live, other=0.0)
    tl.store(h_steps + (first + batch) * H + state, h, mask=live)
    operand = operands + (first + batch) * K + row[:, None] * K + unit[None, :]
    store_operand(operand, h, live)
    if SAVE:
        tl.store(gates + own, r, mask=live)
        tl.store(gates + own + H, z, mask=live)
        tl.store(gates + own + 2 * H, n, mask=live)
        tl.store(recurrent_n + first * H + state, n_h, mask=live)


@triton.jit(do_not_specialize=["t"])
@no_type_check
def _backward(
    t, batch, gates, recurrent_n, h_steps, weight, dy, dh_carry, dinput, drecurrent,
    H: tl.constexpr, K: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Step t of a block: drecurrent[t+1] and dh_carry → the same of step t, and dinput[t].

    dinput and drecurrent are the gradients of the input and of the recurrent product; they differ
    in n, where r lies between the two. dh_carry is what reaches h past the product.
    """
    unit = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    first = t.to(tl.int64) * batch
    live = (row < batch)[:, None] & (unit < H)[None, :]
    following = drecurrent + (first + batch) * K
    dh = recurrent_gradient(following, weight, row, unit, batch, H, K, BLOCK_B, BLOCK_H, BLOCK_K)
    state = row[:, None] * H + unit[None, :]
    dh += tl.load(dy + first * H + state, mask=live, other=0.0).to(tl.float32)
    dh += tl.load(dh_carry + state, mask=live, other=0.0)

    own = gates + first * 3 * H + row[:, None] * 3 * H + unit[None, :]
    r = tl.load(own, mask=live, other=0.0)
    z = tl.load(own + H, mask=live, other=0.0)
    n = tl.load(own + 2 * H, mask=live, other=0.0)
    n_h = tl.load(recurrent_n + first * H + state, mask=live, other=0.0)
    h_before = tl.load(h_steps + first * H + state, mask=live, other=0.0)
    tl.store(dh_carry + state, dh * z, mask=live)
    dn = dh * (1 - z) * (1 - n * n)
    dr = dn * n_h * r * (1 - r)
    dz = dh * (h_before - n) * z * (1 - z)
    out = first * K + row[:, None] * K + unit[None, :]
    store_operand(dinput + out, dr, live)
    store_operand(dinput + out + H, dz, live)
    store_operand(dinput + out + 2 * H, dn, live)
    store_operand(drecurrent + out, dr, live)
    store_operand(drecurrent + out + H, dz, live)
    store_operand(drecurrent + out + 2 * H, dn * r, live)


class GRUFunction(torch.autograd.Function):
    """`triton_cells.gru` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "T B I"],
        h: Float[Tensor, "B H"],
        weight_ih: Float[Tensor, "3*H I"],
        weight_hh: Float[Tensor, "3*H H"],
        bias_ih: Float[Tensor, " 3*H"] | None,
        bias_hh: Float[Tensor, " 3*H"] | None,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        shape = geometry(x, weight_hh)
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        ctx.shape, ctx.x_dtype = shape, x.dtype
        x = x.to(weight_ih.dtype)
        gates = product(x.flatten(0, 1), weight_ih.t(), torch.float32)
        if bias_ih is not None:
            gates += bias_ih
        bias_n = None
        if bias_hh is not None:  # its n lies inside the product with r
            gates[:, : 2 * hidden] += bias_hh[: 2 * hidden]
            bias_n = bias_hh[2 * hidden :]
        inner = shape.padded(hidden)
        # Zeros: the recurrent product also sums over the padding.
        operands = weight_hh.new_zeros(steps + 1, batch, inner)
        operands[0, :, :hidden] = h
        h_steps = gates.new_empty(steps + 1, batch, hidden)
        h_steps[0] = h
        save = training and any(ctx.needs_input_grad)
        recurrent_n = torch.empty_like(h_steps[1:]) if save else h_steps
        weight = pad_columns(weight_hh, inner)
        for t in range(steps):
            _forward[shape.grid](
                t, batch, gates, weight, bias_n, operands, h_steps, recurrent_n,
                SAVE=save, **shape.constants(inner),
            )  # fmt: skip
        if save:
            ctx.save_for_backward(x, weight_ih, weight_hh, gates, recurrent_n, operands, h_steps)
        # A view of h_steps would keep the window alive for as long as its final state.
        return operands[1:, :, :hidden], h_steps[steps].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, recurrent_n, operands, h_steps = ctx.saved_tensors
        shape = ctx.shape
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        inner = shape.padded(3 * hidden)
        # Zeros: after the last step nothing flows back, and the product sums over the padding.
        drecurrent = weight_hh.new_zeros(steps + 1, batch, inner)
        dinput = weight_hh.new_empty(steps, batch, inner)
        dy = dy.contiguous()
        dh = dh.clone(memory_format=torch.contiguous_format)  # the kernel writes to it
        weight = pad_columns(weight_hh.t(), inner)
        for t in reversed(range(steps)):
            _backward[shape.grid](
                t, batch, gates, recurrent_n, h_steps, weight, dy, dh, dinput, drecurrent,
                **shape.constants(inner),
            )  # fmt: skip
        d_x = dinput.flatten(0, 1)[:, : 3 * hidden]
        d_h = drecurrent[:steps].flatten(0, 1)[:, : 3 * hidden]
        h_before = operands[:steps].flatten(0, 1)[:, :hidden]
        needs = ctx.needs_input_grad
        return (
            product(d_x, weight_ih, ctx.x_dtype).view_as(x) if needs[0] else None,
            dh + product(d_h[:batch], weight_hh, torch.float32) if needs[1] else None,
            d_x.t() @ x.flatten(0, 1) if needs[2] else None,
            d_h.t() @ h_before if needs[3] else None,
            d_x.sum(0, dtype=torch.float32) if needs[4] else None,
            d_h.sum(0, dtype=torch.float32) if needs[5] else None,
            None,
        )
