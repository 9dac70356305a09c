"""An Elman network over a window as one autograd function; the plan is `kernels.lstm`'s."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.kernels.products import (
    Prepare,
    input_gradient,
    input_products,
    weight_gradient,
    zeros_or,
)


class RNNSequence(torch.autograd.Function):
    """(x [T,B,I], h [B,H], W_ih [H,I], W_hh [H,H], bias [H] | None, σ) → (y [T,B,H], h).

    Products in the dtype of x and the matrices; state and point-wise arithmetic in that of h.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor | None,
        nonlinearity: str,
        prepare: Prepare,
    ) -> tuple[Tensor, Tensor]:
        steps, streams, _ = x.shape
        product = prepare(weight_hh, streams)
        states = h.new_empty(steps + 1, *h.shape)
        outputs = states if x.dtype == h.dtype else x.new_empty(states.shape)
        states[0], outputs[0] = h, h
        apply = getattr(torch, f"{nonlinearity}_")
        h_t, y_t = states.unbind(), outputs.unbind()
        for t, addend in enumerate(input_products(x, weight_ih, bias).unbind(), start=1):
            apply(h_t[t].copy_(product(y_t[t - 1], addend)))
            if outputs is not states:
                y_t[t].copy_(h_t[t])
        ctx.save_for_backward(x, weight_ih, weight_hh, states, outputs)
        ctx.prepare, ctx.nonlinearity, ctx.has_bias = prepare, nonlinearity, bias is not None
        ctx.set_materialize_grads(False)
        return outputs[1:], states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dh_last: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, states, outputs = ctx.saved_tensors
        product = ctx.prepare(weight_hh.T, x.shape[1])
        d_a = _slope(states[1:], ctx.nonlinearity)
        d_operand = d_a if x.dtype == d_a.dtype else x.new_empty(d_a.shape)
        dy_t = zeros_or(dy, outputs[1:]).unbind()
        dh = dy_t[-1] + zeros_or(dh_last, states[0])
        for t in range(len(d_a) - 1, -1, -1):
            d_a[t].mul_(dh)
            if d_operand is not d_a:
                d_operand[t].copy_(d_a[t])
            if t == 0 and not ctx.needs_input_grad[1]:
                break  # nobody asks for the gradient of the state before the window
            addend = dy_t[t - 1] if t else torch.zeros_like(dy_t[0])
            dh = product(d_operand[t], addend)
        return (
            input_gradient(ctx, d_operand, weight_ih),
            dh.to(states.dtype),
            weight_gradient(d_operand, x),
            weight_gradient(d_operand, outputs[:-1]),
            d_a.sum((0, 1)) if ctx.has_bias else None,
            None,
            None,
        )


def _slope(h: Tensor, nonlinearity: str) -> Tensor:
    """σ' as a function of σ's value."""
    if nonlinearity == "relu":
        return (h > 0).to(h.dtype)
    if nonlinearity == "tanh":
        return (h * h).neg_().add_(1)
    return torch.addcmul(h, h, h, value=-1)
