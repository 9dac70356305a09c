"""Products of a loop over time whose weight gradient is computed once, for the whole window.

Autograd adds a matrix of the weight's size in every step of a loop: with few streams that is far
more memory traffic than the product itself. Here each step leaves its operand and its gradient
behind, and one product over all steps makes the weight's gradient when the loop has been walked
back. So a cell that is written as its equations runs at a good part of a fused kernel's speed.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.kernels.products import Prepare, Product


class Deferred:
    """A weight [M, K] for one window; calling it is the product with a step's operand.

    Args:
        prepare: how to multiply, which may rearrange the matrix first.
        num_streams: rows of each operand.
    """

    def __init__(self, weight: Tensor, prepare: Prepare, num_streams: int) -> None:
        self.dtype = weight.dtype
        self.product = prepare(weight.detach(), num_streams)
        self._prepare, self._num_streams, self._weight = prepare, num_streams, weight.detach()
        self._back: Product | None = None
        self._operands: list[Tensor] = []
        self._gradients: list[Tensor] = []
        training = torch.is_grad_enabled() and weight.requires_grad
        # Every product of the window is a child of this node, so it is the last to go backward.
        self._anchor = _Anchor.apply(weight, self) if training else None  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ [B, M]."""
        if self._anchor is None and not (torch.is_grad_enabled() and x.requires_grad):
            return self.product(x, None)
        y: Tensor = _Product.apply(x, self._anchor, self)  # type: ignore[no-untyped-call]
        return y

    def close(self) -> None:
        """No more products in this window; the graph and this object stop holding each other."""
        self._anchor = None

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient of an operand: gradient · W."""
        if self._back is None:
            self._back = self._prepare(self._weight.T, self._num_streams)
        return self._back(gradient, None)

    def leave(self, operand: Tensor, gradient: Tensor) -> None:
        """What a step contributes to the weight's gradient."""
        self._operands.append(operand)
        self._gradients.append(gradient)

    def collect(self) -> Tensor | None:
        """The weight's gradient from all steps; None where none went backward."""
        if not self._operands:
            return None
        operands, gradients = torch.cat(self._operands), torch.cat(self._gradients)
        self._operands, self._gradients = [], []
        return gradients.T @ operands


class _Anchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, owner: Deferred) -> Tensor:
        ctx.owner = owner
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, None]:
        return ctx.owner.collect(), None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor | None, owner: Deferred) -> Tensor:
        ctx.save_for_backward(x)
        ctx.owner = owner
        return owner.product(x, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        needs_x, needs_weight, _ = ctx.needs_input_grad
        if needs_weight:
            ctx.owner.leave(x, gradient)
        # The anchor has to hear from every product, or it would not know when all are done.
        heard = gradient.new_zeros(()) if needs_weight else None
        return ctx.owner.back(gradient) if needs_x else None, heard, None
