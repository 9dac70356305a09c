"""Word vectors and the softmax loss where each process has some of the words' rows.

What differs from one process: tokens and features come from all streams, and a softmax's
normaliser is put together from everybody's part of it, some rows of the logits at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.embedding import TiedGradient, row_gradient
from lm.models.kernels.nll import Operands, accumulate, row_chunks
from lm.models.shard import Shard

# Of a share of the streams, which a factor of one was divided and multiplied by.
_ROUNDING = 1e-6


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        weight: Tensor,
        shard: Shard,
        tied: TiedGradient | None,
        sparse: bool,
    ) -> Tensor:
        flat = tokens.flatten()
        ctx.counts = shard.processes.counts(flat)
        words = shard.processes.gather_lists(flat, ctx.counts)
        row, ours = shard.place(words)
        ctx.save_for_backward(row, ours)
        ctx.shape, ctx.shard, ctx.tied, ctx.sparse = weight.shape, shard, tied, sparse
        vectors = weight[row].masked_fill_(~ours[:, None], 0.0)
        return shard.add_up(vectors, ctx.counts).view(*tokens.shape, weight.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        row, ours = ctx.saved_tensors
        own = grad.flatten(0, -2).contiguous()
        values = ctx.shard.processes.gather_lists(own, ctx.counts)
        so_far = None if ctx.tied is None else ctx.tied.take()
        gradient = row_gradient(
            row[ours], values[ours], ctx.shape, sparse=ctx.sparse, add_to=so_far
        )
        return None, gradient, None, None, None


class _Loss(torch.autograd.Function):
    """The mean of our own tokens' nats, with the gradient of everybody's in our words' rows."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        shard: Shard,
        dtype: torch.dtype,
        tied: TiedGradient | None,
    ) -> tuple[Tensor, Tensor]:
        counts = shard.processes.counts(targets)
        nll, *gradients = sharded_nll(
            features, weight, bias, targets, shard, counts, dtype=dtype, gradients=True
        )
        ctx.save_for_backward(*gradients)
        ctx.features_dtype, ctx.tied = features.dtype, tied
        # Gradients are of the mean over everybody's tokens. A process multiplies its objective
        # with its share of them; what all have to apply alike must not be multiplied again.
        ctx.share = len(targets) / sum(counts)
        ctx.mark_non_differentiable(nll)
        return nll.mean(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, factor = list(ctx.saved_tensors), grad / ctx.share
        # One is the rule; on the CPU looking costs nothing, multiplying a pass over the words.
        if grad.device.type != "cpu" or abs(float(factor) - 1.0) > _ROUNDING:
            gradients = [None if g is None else g * factor for g in gradients]
        d_features, d_weight, d_bias = gradients
        if ctx.tied is not None and d_weight is not None:
            ctx.tied.put(d_weight)
            d_weight = None
        return d_features.to(ctx.features_dtype), d_weight, d_bias, None, None, None, None


def sharded_embed(
    tokens: Int[Tensor, "*N"],
    weight: Float[Tensor, "K E"],
    shard: Shard,
    *,
    tied: TiedGradient | None = None,
    sparse: bool = False,
) -> Float[Tensor, "*N E"]:
    """The vectors of our tokens, whoever has their rows; see `embed`."""
    vectors: Tensor = _Embed.apply(tokens, weight, shard, tied, sparse)  # type: ignore[no-untyped-call]
    return vectors


def sharded_loss(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "K F"],
    bias: Float[Tensor, " K"] | None,
    targets: Int[Tensor, " N"],
    shard: Shard,
    *,
    dtype: torch.dtype,
    tied: TiedGradient | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """The mean of −log softmax(W x_n + b)[target_n] over our own tokens, and each of them."""
    objective, nll = _Loss.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, targets, shard, dtype, tied
    )
    return objective, nll


@torch.no_grad()
def sharded_nll(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    shard: Shard,
    counts: Sequence[int],
    *,
    dtype: torch.dtype,
    gradients: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Nats of our own tokens, and the gradients of the mean over everybody's.

    Of features those of our own tokens, of weight and bias those of our own rows.

    Args:
        counts: how many tokens each process has.
    """
    x = shard.processes.gather_lists(features.to(dtype), counts)
    row, ours = shard.place(shard.processes.gather_lists(targets, counts))
    nll = weight.new_empty(len(x))
    d_x = weight.new_zeros(x.shape) if gradients else None
    d_weight = torch.zeros_like(weight) if gradients else None
    d_bias = torch.zeros_like(bias) if gradients and bias is not None else None
    operands, share = Operands(weight, dtype), 1 / len(x)
    for rows in row_chunks(x, shard.largest):
        logits = x.new_empty(rows.stop - rows.start, len(weight))
        for words, operand in operands:
            torch.mm(x[rows], operand.T, out=logits[:, words])
        z = logits.to(weight.dtype)
        if bias is not None:
            z += bias
        column, here = row[rows, None], ours[rows, None]
        nll[rows], p = _normalised(z, column, here, shard)
        if d_x is None:
            continue
        # ∂nll/∂z = p − onehot(target), of the mean.
        p.mul_(share).scatter_add_(1, column, here.to(p.dtype) * -share)
        if d_bias is not None:
            d_bias += p.sum(0)
        low = p.to(dtype)
        for words, operand in operands:
            accumulate(d_x[rows], low[:, words], operand, add=True)
            assert d_weight is not None
            accumulate(d_weight[words], low[:, words].T, x[rows], add=True)
    first = sum(counts[: shard.processes.rank])
    own = slice(first, first + len(targets))
    return nll[own], None if d_x is None else shard.add_up(d_x, counts), d_weight, d_bias


def _normalised(z: Tensor, column: Tensor, here: Tensor, shard: Shard) -> tuple[Tensor, Tensor]:
    """nll of some rows, and the probabilities of our own words in place of their logits."""
    highest = z.amax(1)
    shard.processes.take_largest(highest)
    wanted = torch.where(here, z.gather(1, column), 0.0).squeeze(1)
    p = z.sub_(highest[:, None]).exp_()
    sums = torch.stack([p.sum(1), wanted])
    shard.processes.add_up(sums)
    normaliser, wanted = sums
    return highest + normaliser.log() - wanted, p.mul_(normaliser.reciprocal()[:, None])
