"""The cells over a window with the loop over time in C: `native/lstm.h`, `gru.h` and `rnn.h`."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.kernels import native
from lm.models.kernels.products import input_gradient, weight_gradient, zeros_or

_NONLINEARITIES = ("tanh", "relu", "sigmoid")  # as in kernels.c


class _Window:
    """The sizes of one window, its buffers, and calls of C functions on them."""

    def __init__(self, x: Tensor, h: Tensor) -> None:
        self.operands = x.dtype
        self.steps, self.streams, _ = x.shape
        self.size = h.shape[1]
        self.lanes = native.lanes(h.dtype)
        self.groups = -(-self.size // self.lanes)
        self.numbers = (self.steps, self.streams, self.size, torch.get_num_threads())

    def blocks(self, like: Tensor, *before: int, each: int = 1) -> Tensor:
        """A buffer [*before, B, groups, each · LANES]."""
        return like.new_empty(*before, self.streams, self.groups, each * self.lanes)

    def packed(self, like: Tensor, columns: int, inner: int) -> Tensor:
        """A buffer for a matrix of `columns` column groups of `inner` elements."""
        return like.new_empty(columns * self.groups, inner + inner % 2, self.lanes)

    def call(self, name: str, *tensors: Tensor | None, more: tuple[int, ...] = ()) -> None:
        native.call(name, self.operands, (*self.numbers, *more), tensors)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


class NativeLSTM(torch.autograd.Function):
    """(x [T,B,I], h, c [B,H], W_ih [4H,I], W_hh [4H,H], bias [4H] | None) → (y [T,B,H], h, c)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        window = _Window(x, h)
        outputs = x.new_empty(window.steps + 1, *h.shape)
        outputs[0] = h
        gates, cells = window.blocks(h, window.steps, each=4), window.blocks(h, window.steps + 1)
        last_h, last_c = torch.empty_like(h), torch.empty_like(c)
        window.call(
            "lstm_forward",
            *_contiguous(weight_hh, window.packed(x, 4, window.size)),
            x.flatten(0, 1) @ weight_ih.T,
            *_contiguous(bias, c),
            outputs, gates, cells, last_h, last_c,
        )  # fmt: skip
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, cells, outputs)
        ctx.window, ctx.has_bias = window, bias is not None
        ctx.set_materialize_grads(False)
        return outputs[1:], last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, dh_last: Tensor | None, dc_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, cells, outputs = ctx.saved_tensors
        window: _Window = ctx.window
        d_gates = x.new_empty(window.steps, window.streams, 4 * window.size)
        d_bias = gates.new_empty(4 * window.size)
        dc = gates.new_empty(window.streams, window.size)
        dh = torch.empty_like(dc) if ctx.needs_input_grad[1] else None
        window.call(
            "lstm_backward",
            *_contiguous(weight_hh, window.packed(x, 1, 4 * window.size)),
            gates, cells, zeros_or(dy, outputs[1:]), *_contiguous(dh_last),
            window.blocks(gates), *_contiguous(dc_last), d_gates, d_bias, dh, dc,
        )  # fmt: skip
        return (
            input_gradient(ctx, d_gates, weight_ih),
            dh,
            dc,
            weight_gradient(d_gates, x),
            weight_gradient(d_gates, outputs[:-1]),
            d_bias if ctx.has_bias else None,
        )


class NativeGRU(torch.autograd.Function):
    """(x [T,B,I], h [B,H], W_ih [3H,I], W_hh [3H,H], bias [3H], b'_n [H] | None) → (y [T,B,H], h).

    The biases are those of `lm.models.kernels.gru.GRUSequence`.
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
    ) -> tuple[Tensor, Tensor]:
        window = _Window(x, h)
        outputs = x.new_empty(window.steps + 1, *h.shape)
        outputs[0] = h
        gates, states = window.blocks(h, window.steps, each=4), window.blocks(h, window.steps + 1)
        last = torch.empty_like(h)
        window.call(
            "gru_forward",
            *_contiguous(weight_hh, window.packed(x, 3, window.size)),
            x.flatten(0, 1) @ weight_ih.T,
            *_contiguous(bias, bias_n, h),
            outputs, gates, states, last,
        )  # fmt: skip
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, states, outputs)
        ctx.window, ctx.biases = window, (bias is not None, bias_n is not None)
        ctx.set_materialize_grads(False)
        return outputs[1:], last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dh_last: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, states, outputs = ctx.saved_tensors
        window: _Window = ctx.window
        size = window.size
        d_gates = x.new_empty(window.steps, window.streams, 3 * size)
        d_candidate = x.new_empty(window.steps, window.streams, size)
        d_bias = gates.new_empty(4 * size)
        dh = gates.new_empty(window.streams, size) if ctx.needs_input_grad[1] else None
        window.call(
            "gru_backward",
            *_contiguous(weight_hh, window.packed(x, 1, 3 * size)),
            gates, states, zeros_or(dy, outputs[1:]), *_contiguous(dh_last),
            window.blocks(gates), d_gates, d_candidate, d_bias, dh,
        )  # fmt: skip
        d_weight_hh = weight_gradient(d_gates, outputs[:-1])
        # For the input the reset gate is not in the way of the candidate.
        d_gates[..., 2 * size :] = d_candidate
        return (
            input_gradient(ctx, d_gates, weight_ih),
            dh,
            weight_gradient(d_gates, x),
            d_weight_hh,
            d_bias[: 3 * size] if ctx.biases[0] else None,
            d_bias[3 * size :] if ctx.biases[1] else None,
        )


class NativeRNN(torch.autograd.Function):
    """(x [T,B,I], h [B,H], W_ih [H,I], W_hh [H,H], bias [H] | None, σ) → (y [T,B,H], h)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor | None,
        nonlinearity: str,
    ) -> tuple[Tensor, Tensor]:
        window = _Window(x, h)
        outputs = x.new_empty(window.steps + 1, *h.shape)
        outputs[0] = h
        states, last = window.blocks(h, window.steps), torch.empty_like(h)
        which = (_NONLINEARITIES.index(nonlinearity),)
        window.call(
            "rnn_forward",
            *_contiguous(weight_hh, window.packed(x, 1, window.size)),
            x.flatten(0, 1) @ weight_ih.T, *_contiguous(bias), outputs, states, last,
            more=which,
        )  # fmt: skip
        ctx.save_for_backward(x, weight_ih, weight_hh, states, outputs)
        ctx.window, ctx.which, ctx.has_bias = window, which, bias is not None
        ctx.set_materialize_grads(False)
        return outputs[1:], last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dh_last: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, states, outputs = ctx.saved_tensors
        window: _Window = ctx.window
        d_a = x.new_empty(window.steps, window.streams, window.size)
        d_bias = states.new_empty(window.size)
        dh = states.new_empty(window.streams, window.size) if ctx.needs_input_grad[1] else None
        window.call(
            "rnn_backward",
            *_contiguous(weight_hh, window.packed(x, 1, window.size)),
            states, zeros_or(dy, outputs[1:]), *_contiguous(dh_last), d_a, d_bias, dh,
            more=ctx.which,
        )  # fmt: skip
        return (
            input_gradient(ctx, d_a, weight_ih),
            dh,
            weight_gradient(d_a, x),
            weight_gradient(d_a, outputs[:-1]),
            d_bias if ctx.has_bias else None,
            None,
        )
