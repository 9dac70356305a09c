"""An LSTM over a window as one autograd function.

What does not depend on the previous step happens for the whole window at once: the input products
before the loop; in the backward pass every factor of the gate gradients before it, and the
gradients of input and weights, one product each, after it. In the loop stay the recurrent product
and the fewest point-wise operations that the recurrence allows.
"""

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


class LSTMSequence(torch.autograd.Function):
    """(x [T,B,I], h, c [B,H], W_ih [4H,I], W_hh [4H,H], bias [4H] | None) → (y [T,B,H], h, c).

    Products in the dtype of x and the matrices; state and point-wise arithmetic in that of c.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor | None,
        prepare: Prepare,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, streams, _ = x.shape
        size = h.shape[1]
        product = prepare(weight_hh, streams)
        gates = c.new_empty(steps, streams, 4 * size)
        cells = c.new_empty(steps + 1, streams, size)
        squashed = c.new_empty(steps, streams, size)
        outputs = x.new_empty(steps + 1, streams, size)
        cells[0], outputs[0] = c, h
        i, f, g, o = (gate.unbind() for gate in gates.chunk(4, dim=-1))
        i_f, all_four = gates[..., : 2 * size].unbind(), gates.unbind()
        y_t, c_t, tanh_c = outputs.unbind(), cells.unbind(), squashed.unbind()
        for t, addend in enumerate(input_products(x, weight_ih, bias).unbind()):
            all_four[t].copy_(product(y_t[t], addend))
            i_f[t].sigmoid_()
            g[t].tanh_()
            o[t].sigmoid_()
            torch.mul(f[t], c_t[t], out=c_t[t + 1]).addcmul_(i[t], g[t])
            torch.tanh(c_t[t + 1], out=tanh_c[t])
            y_t[t + 1].copy_(o[t] * tanh_c[t])
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, cells, squashed, outputs)
        ctx.prepare, ctx.has_bias = prepare, bias is not None
        ctx.set_materialize_grads(False)
        return outputs[1:], o[-1] * tanh_c[-1], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, dh_last: Tensor | None, dc_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, cells, squashed, outputs = ctx.saved_tensors
        steps, streams, size = squashed.shape
        product = ctx.prepare(weight_hh.T, streams)
        d_gates, dc_by_dh = _factors(gates, cells, squashed)
        d_operand = d_gates if x.dtype == d_gates.dtype else x.new_empty(d_gates.shape)
        dy_t = zeros_or(dy, outputs[1:]).unbind()
        dh = dy_t[-1] + zeros_or(dh_last, cells[0])
        dc = zeros_or(dc_last, cells[0]).clone()
        f, d_o = gates[..., size : 2 * size].unbind(), d_gates[..., 3 * size :].unbind()
        d_ifg = d_gates.view(steps, streams, 4, size)[:, :, :3].unbind()
        for t in range(steps - 1, -1, -1):
            dc.addcmul_(dh, dc_by_dh[t])
            d_ifg[t].mul_(dc.unsqueeze(1))
            d_o[t].mul_(dh)
            dc.mul_(f[t])
            if d_operand is not d_gates:
                d_operand[t].copy_(d_gates[t])
            if t == 0 and not ctx.needs_input_grad[1]:
                break  # nobody asks for the gradient of the state before the window
            addend = dy_t[t - 1] if t else torch.zeros_like(dy_t[0])
            dh = product(d_operand[t], addend).to(dc.dtype)
        return (
            input_gradient(ctx, d_operand, weight_ih),
            dh,
            dc,
            weight_gradient(d_operand, x),
            weight_gradient(d_operand, outputs[:-1]),
            d_gates.sum((0, 1)) if ctx.has_bias else None,
            None,
        )


def _factors(gates: Tensor, cells: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """All of the backward pass that needs no recurrence.

    Returns:
        what ∂L/∂c_t (for i, f, g) or ∂L/∂h_t (for o) is multiplied with to give the gradient of
        the pre-activations [T, B, 4H]; and ∂c_t's share of ∂h_t, o (1 − tanh² c_t).
    """
    i, _, g, o = gates.chunk(4, dim=-1)
    factors = torch.addcmul(gates, gates, gates, value=-1)  # σ' = σ (1 − σ)
    d_i, d_f, d_g, d_o = factors.chunk(4, dim=-1)
    d_i.mul_(g)
    d_f.mul_(cells[:-1])
    torch.addcmul(i, i, g * g, value=-1, out=d_g)  # i (1 − g²)
    d_o.mul_(squashed)
    return factors, torch.addcmul(o, o, squashed * squashed, value=-1)
