"""The cells over a window with the loop over time in C: `native/lstm.h`, `gru.h` and `rnn.h`."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.kernels import native
from lm.models.kernels.products import input_gradient, weight_gradient, zeros_or

_NONLINEARITIES = ("tanh", "relu", "sigmoid")  # as in common.h


class _Window:
    """The sizes of one window, its buffers, and calls of C functions on them.

    Attributes:
        operands: dtype of the operands of products; the one of x decides.
        real: dtype of all else.
    """

    def __init__(self, x: Tensor, size: int) -> None:
        self.operands = x.dtype
        self.real = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.steps, self.streams, _ = x.shape
        self.size = size
        self.lanes = native.lanes(self.operands)
        self.groups = -(-size // self.lanes)
        self.numbers = (self.steps, self.streams, size, torch.get_num_threads())

    def reals(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.real)

    def sums(self, width: int) -> Tensor:
        """Zeros [tiles, width], to be added up over the streams of each tile."""
        tiles = -(-self.streams // native.tile_rows(self.operands))
        return torch.zeros(tiles, width, dtype=self.real)

    def sequence(self, steps: int, width: int) -> Tensor:
        """A buffer of operands [steps, B, width]."""
        return torch.empty(steps, self.streams, width, dtype=self.operands)

    def blocks(self, *before: int, each: int = 1) -> Tensor:
        """A buffer [*before, B, groups, each · LANES]."""
        return self.reals(*before, self.streams, self.groups, each * self.lanes)

    def packed(self, columns: int, inner: int) -> Tensor:
        """A buffer for a matrix of `columns` column groups of `inner` elements."""
        shape = columns * self.groups, inner + inner % 2, self.lanes
        return torch.empty(shape, dtype=self.operands)

    def plain(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """As C reads them: real and contiguous."""
        return [None if t is None else t.to(self.real).contiguous() for t in tensors]

    def call(self, name: str, *tensors: Tensor | None, more: tuple[int, ...] = ()) -> None:
        native.call(name, self.operands, (*self.numbers, *more), tensors)

    def matrix(self, weight: Tensor) -> Tensor:
        """The recurrent matrix as C reads it."""
        return weight.to(self.operands).contiguous()


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
        window = _Window(x, h.shape[1])
        outputs = window.sequence(window.steps + 1, window.size)
        outputs[0] = h
        gates, cells = window.blocks(window.steps, each=4), window.blocks(window.steps + 1)
        last_h, last_c = window.reals(*h.shape), window.reals(*h.shape)
        window.call(
            "lstm_forward",
            window.matrix(weight_hh), window.packed(4, window.size),
            x.flatten(0, 1) @ weight_ih.T,
            *window.plain(bias, c),
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
        d_gates = window.sequence(window.steps, 4 * window.size)
        d_bias = window.sums(4 * window.size)
        dc = window.reals(window.streams, window.size)
        dh = torch.empty_like(dc) if ctx.needs_input_grad[1] else None
        window.call(
            "lstm_backward",
            window.matrix(weight_hh), window.packed(1, 4 * window.size),
            gates, cells, zeros_or(dy, outputs[1:]), *window.plain(dh_last),
            window.blocks(), *window.plain(dc_last), d_gates, d_bias, dh, dc,
        )  # fmt: skip
        return (
            input_gradient(ctx, d_gates, weight_ih),
            dh,
            dc,
            weight_gradient(d_gates, x),
            weight_gradient(d_gates, outputs[:-1]),
            d_bias.sum(0) if ctx.has_bias else None,
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
        window = _Window(x, h.shape[1])
        outputs = window.sequence(window.steps + 1, window.size)
        outputs[0] = h
        gates, states = window.blocks(window.steps, each=4), window.blocks(window.steps + 1)
        last = window.reals(*h.shape)
        window.call(
            "gru_forward",
            window.matrix(weight_hh), window.packed(3, window.size),
            x.flatten(0, 1) @ weight_ih.T,
            *window.plain(bias, bias_n, h),
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
        d_gates = window.sequence(window.steps, 3 * size)
        d_candidate = window.sequence(window.steps, size)
        d_bias = window.sums(4 * size)
        dh = window.reals(window.streams, size) if ctx.needs_input_grad[1] else None
        window.call(
            "gru_backward",
            window.matrix(weight_hh), window.packed(1, 3 * size),
            gates, states, zeros_or(dy, outputs[1:]), *window.plain(dh_last),
            window.blocks(), d_gates, d_candidate, d_bias, dh,
        )  # fmt: skip
        d_weight_hh = weight_gradient(d_gates, outputs[:-1])
        # For the input the reset gate is not in the way of the candidate.
        d_gates[..., 2 * size :] = d_candidate
        return (
            input_gradient(ctx, d_gates, weight_ih),
            dh,
            weight_gradient(d_gates, x),
            d_weight_hh,
            d_bias[:, : 3 * size].sum(0) if ctx.biases[0] else None,
            d_bias[:, 3 * size :].sum(0) if ctx.biases[1] else None,
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
        window = _Window(x, h.shape[1])
        outputs = window.sequence(window.steps + 1, window.size)
        outputs[0] = h
        states, last = window.blocks(window.steps), window.reals(*h.shape)
        which = (_NONLINEARITIES.index(nonlinearity),)
        window.call(
            "rnn_forward",
            window.matrix(weight_hh), window.packed(1, window.size),
            x.flatten(0, 1) @ weight_ih.T, *window.plain(bias), outputs, states, last,
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
        d_a = window.sequence(window.steps, window.size)
        d_bias = window.sums(window.size)
        dh = window.reals(window.streams, window.size) if ctx.needs_input_grad[1] else None
        window.call(
            "rnn_backward",
            window.matrix(weight_hh), window.packed(1, window.size),
            states, zeros_or(dy, outputs[1:]), *window.plain(dh_last), d_a, d_bias, dh,
            more=ctx.which,
        )  # fmt: skip
        return (
            input_gradient(ctx, d_a, weight_ih),
            dh,
            weight_gradient(d_a, x),
            weight_gradient(d_a, outputs[:-1]),
            d_bias.sum(0) if ctx.has_bias else None,
            None,
        )
