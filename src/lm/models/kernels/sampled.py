"""The loss over a sample of the vocabulary, whose cost does not grow with it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.embedding import TiedGradient, row_gradient


@dataclass(frozen=True, slots=True)
class Sample:
    """Words whose logits stand for all in the normaliser.

    Attributes:
        words: which.
        log_weight: how many words of the vocabulary each stands for, as a logarithm.
        column: for every word of the vocabulary its place in `words`, or −1.
    """

    words: Int[Tensor, " K"]
    log_weight: Float[Tensor, " K"]
    column: Int[Tensor, " V"]


class _SampledLoss(torch.autograd.Function):
    """Mean of nll [N], and nll, which is for reporting and has no gradient.

    A token's own word enters its normaliser exactly, once, in the precision of the weight; the
    sample stands for all others: Z = exp(z_own) + Σ_{k ≠ own} weight_k exp(z_k).
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        sample: Sample,
        dtype: torch.dtype,
        tied: TiedGradient | None,
        sparse: bool,
    ) -> tuple[Tensor, Tensor]:
        words, own = weight[sample.words].to(dtype), weight[targets]
        x, exact = features.to(dtype), features.to(weight.dtype)
        shift = sample.log_weight
        own_logit = (exact * own).sum(1)
        if bias is not None:
            shift, own_logit = shift + bias[sample.words], own_logit + bias[targets]
        logits = (x @ words.T).to(weight.dtype).add_(shift)
        column = sample.column[targets][:, None]
        inside = torch.where(column < 0, logits[:, :1], -torch.inf)
        logits.scatter_(1, column.clamp(min=0), inside)
        normaliser = torch.logaddexp(logits.logsumexp(1), own_logit)
        nll = normaliser - own_logit
        share = 1 / len(targets)
        d_own = torch.expm1(-nll).mul_(share)[:, None]  # (p_own − 1) / N
        d_logits = logits.sub_(normaliser[:, None]).exp_().mul_(share)
        low = d_logits.to(dtype)
        d_x = (low @ words).to(weight.dtype).addcmul_(d_own, own)
        rows = torch.cat([sample.words, targets])
        d_rows = torch.cat([(low.T @ x).to(weight.dtype), d_own * exact])
        d_bias = None
        if bias is not None:
            values = torch.cat([d_logits.sum(0), d_own[:, 0]])[:, None]
            shape = torch.Size((len(bias), 1))
            d_bias = row_gradient(rows, values, shape, sparse=False).squeeze(1)
        ctx.save_for_backward(d_x.to(features.dtype), rows, d_rows, d_bias)
        ctx.shape, ctx.tied, ctx.sparse = weight.shape, tied, sparse
        ctx.mark_non_differentiable(nll)
        return nll.mean(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_x, rows, d_rows, d_bias = ctx.saved_tensors
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = row_gradient(rows, d_rows * grad, ctx.shape, sparse=ctx.sparse)
            if ctx.tied is not None:
                ctx.tied.put(d_weight)
                d_weight = None
        d_bias = None if d_bias is None else d_bias * grad
        return d_x * grad, d_weight, d_bias, None, None, None, None, None


def sampled_loss(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    sample: Sample,
    *,
    dtype: torch.dtype | None = None,
    tied: TiedGradient | None = None,
    sparse: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """An estimate of the mean of −log softmax(W x_n + b)[target_n], and of each.

    The estimate of the normaliser is unbiased if a word's weight is 1 / its chance to be drawn;
    that of its logarithm is then a little low (Jensen).

    Args:
        dtype: of the operands of the products; None is that of the weight.
        tied: takes the weight's gradient, which then does not reach the weight from here.
        sparse: the weight's gradient holds only the rows that took part.
    """
    objective, nll = _SampledLoss.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, targets, sample, dtype or weight.dtype, tied, sparse
    )
    return objective, nll
