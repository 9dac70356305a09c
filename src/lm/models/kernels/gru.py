"""A GRU over a window as one autograd function; see `lm.models.kernels.lstm` for the plan."""

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


class GRUSequence(torch.autograd.Function):
    """(x [T,B,I], h [B,H], W_ih [3H,I], W_hh [3H,H], bias [3H], b'_n [H] | None) → (y [T,B,H], h).

    `bias` is what is added to all three pre-activations, b'_n what the reset gate multiplies too.
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
        bias_n: Tensor | None,
        prepare: Prepare,
    ) -> tuple[Tensor, Tensor]:
        steps, streams, _ = x.shape
        size = h.shape[1]
        product = prepare(weight_hh, streams)
        addends = input_products(x, weight_ih, bias)
        # The candidate's input part stays outside the reset gate.
        candidates = addends[..., 2 * size :].to(h.dtype, copy=True)
        addends[..., 2 * size :] = 0 if bias_n is None else bias_n
        gates = h.new_empty(steps, streams, 3 * size)  # r, z and U_n h + b'_n
        states = h.new_empty(steps + 1, streams, size)
        outputs = states if x.dtype == h.dtype else x.new_empty(states.shape)
        states[0], outputs[0] = h, h
        r, z, inner = (gate.unbind() for gate in gates.chunk(3, dim=-1))
        r_z, all_three = gates[..., : 2 * size].unbind(), gates.unbind()
        h_t, y_t, n = states.unbind(), outputs.unbind(), candidates.unbind()
        for t, addend in enumerate(addends.unbind()):
            all_three[t].copy_(product(y_t[t], addend))
            r_z[t].sigmoid_()
            n[t].addcmul_(r[t], inner[t]).tanh_()
            torch.lerp(n[t], h_t[t], z[t], out=h_t[t + 1])
            if outputs is not states:
                y_t[t + 1].copy_(h_t[t + 1])
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, candidates, states, outputs)
        ctx.prepare, ctx.biases = prepare, (bias is not None, bias_n is not None)
        ctx.set_materialize_grads(False)
        return outputs[1:], states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dh_last: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, candidates, states, outputs = ctx.saved_tensors
        steps, streams, size = candidates.shape
        product = ctx.prepare(weight_hh.T, streams)
        d_gates, d_n = _factors(gates, candidates, states)
        d_operand = d_gates if x.dtype == d_gates.dtype else x.new_empty(d_gates.shape)
        dy_t = zeros_or(dy, outputs[1:]).unbind()
        dh = dy_t[-1] + zeros_or(dh_last, states[0])
        z = gates[..., size : 2 * size].unbind()
        by_gate = d_gates.view(steps, streams, 3, size).unbind()
        for t in range(steps - 1, -1, -1):
            by_gate[t].mul_(dh.unsqueeze(1))
            d_n[t].mul_(dh)
            if d_operand is not d_gates:
                d_operand[t].copy_(d_gates[t])
            if t == 0 and not ctx.needs_input_grad[1]:
                break  # nobody asks for the gradient of the state before the window
            addend = dy_t[t - 1] if t else torch.zeros_like(dy_t[0])
            dh = torch.addcmul(product(d_operand[t], addend).to(dh.dtype), dh, z[t])
        d_weight_hh = weight_gradient(d_operand, outputs[:-1])
        d_inner = d_gates[..., 2 * size :].sum((0, 1)) if ctx.biases[1] else None
        # For the input the reset gate is not in the way of the candidate.
        d_gates[..., 2 * size :] = d_n
        if d_operand is not d_gates:
            d_operand[..., 2 * size :] = d_n
        return (
            input_gradient(ctx, d_operand, weight_ih),
            dh,
            weight_gradient(d_operand, x),
            d_weight_hh,
            d_gates.sum((0, 1)) if ctx.biases[0] else None,
            d_inner,
            None,
        )


def _factors(gates: Tensor, n: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """What ∂L/∂h_t is multiplied with: for the pre-activations of r and z and for U_n h + b'_n
    [T, B, 3H], and for the candidate's pre-activation [T, B, H].
    """
    r, z, inner = gates.chunk(3, dim=-1)
    d_n = torch.addcmul(1 - z, 1 - z, n * n, value=-1)  # (1 − z) (1 − n²)
    factors = torch.addcmul(gates, gates, gates, value=-1)  # σ' = σ (1 − σ)
    d_r, d_z, d_inner = factors.chunk(3, dim=-1)
    d_r.mul_(inner).mul_(d_n)
    d_z.mul_(states[:-1] - n)
    torch.mul(d_n, r, out=d_inner)
    return factors, d_n
