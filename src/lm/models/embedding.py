"""The embedding's gradient, without a pass over the vocabulary for the few words of a window."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


class TiedGradient:
    """Carries the output layer's gradient of a shared weight to the embedding.

    There the window's rows are added to it, instead of to a second gradient of the same size. The
    embedding is the first to compute and so the last to get its gradient: one carrier for each
    forward pass.
    """

    def __init__(self) -> None:
        self._gradient: Tensor | None = None

    def put(self, gradient: Tensor) -> None:
        """What the output layer gives."""
        self._gradient = gradient

    def take(self) -> Tensor | None:
        """The gradient to add to; None where the output layer gave none."""
        gradient, self._gradient = self._gradient, None
        return gradient


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, tied: TiedGradient | None, sparse: bool
    ) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        ctx.tied, ctx.sparse = tied, sparse
        return torch.nn.functional.embedding(tokens, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        rows, values = tokens.flatten(), grad.flatten(0, -2)
        so_far = None if ctx.tied is None else ctx.tied.take()
        gradient = row_gradient(rows, values, weight.shape, sparse=ctx.sparse, add_to=so_far)
        return None, gradient, None, None


def row_gradient(
    rows: Tensor,
    values: Tensor,
    shape: torch.Size,
    *,
    sparse: bool,
    add_to: Tensor | None = None,
) -> Tensor:
    """The gradient of a [V, F] matrix from values [N, F] for some of its rows.

    Args:
        rows: one may occur several times, which adds up.
        add_to: a gradient so far, which is used up.
    """
    if not sparse and values.is_cuda:
        # scatter_add_ adds in any order there, and a run would not repeat to the last bit.
        total = torch.ops.aten.embedding_dense_backward(values, rows, shape[0], -1, False)
        return total if add_to is None else add_to.add_(total)
    if not sparse:
        total = values.new_zeros(shape) if add_to is None else add_to
        return total.scatter_add_(0, rows[:, None].expand_as(values), values)
    index = rows[None]
    if add_to is not None:
        index = torch.cat([add_to._indices(), index], dim=1)
        values = torch.cat([add_to._values(), values])
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False)


def embed(
    tokens: Int[Tensor, "*N"],
    weight: Float[Tensor, "V E"],
    *,
    tied: TiedGradient | None = None,
    sparse: bool = False,
) -> Float[Tensor, "*N E"]:
    """The rows of `weight` for `tokens`.

    Args:
        tied: brings the output layer's gradient of the same weight.
        sparse: the gradient holds the rows of these tokens only; for an optimiser that leaves
            all others alone.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return torch.nn.functional.embedding(tokens, weight)
    rows: Tensor = _Embed.apply(tokens, weight, tied, sparse)  # type: ignore[no-untyped-call]
    return rows
