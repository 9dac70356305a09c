"""From features to a distribution over the vocabulary, and the loss without whole logits."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits of one chunk: in float32 just below 32 MiB, the largest buffer that malloc reuses instead
# of returning it to the system and faulting it in again at every step.
CHUNK_ELEMENTS = 8_000_000


class _LinearNLL(torch.autograd.Function):
    """nll_n = logsumexp(W x_n + b) − (W x_n + b)[target_n], chunk by chunk over n.

    A single chunk keeps its probabilities for the backward pass; several are computed again,
    which costs a third more products and keeps memory independent of N.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
        parts = [
            _nll_of_chunk(x, weight, bias, y)
            for x, y in zip(torch.split(features, rows), torch.split(targets, rows), strict=True)
        ]
        ctx.rows = rows
        probabilities = parts[0][1] if len(parts) == 1 else None
        ctx.save_for_backward(features, weight, bias, targets, probabilities)
        return torch.cat([nll for nll, _ in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, targets, probabilities = ctx.saved_tensors
        d_features = torch.empty_like(features)
        d_weight = torch.zeros_like(weight)
        d_bias = None if bias is None else torch.zeros_like(bias)
        for begin in range(0, len(features), ctx.rows):
            chunk = slice(begin, begin + ctx.rows)
            x, y, g = features[chunk], targets[chunk], grad[chunk]
            p = probabilities
            if p is None:
                _, p = _nll_of_chunk(x, weight, bias, y)
            # ∂nll/∂logits = softmax − onehot(target)
            d_logits = p * g[:, None]
            d_logits.scatter_add_(1, y[:, None], -g[:, None])
            torch.mm(d_logits, weight, out=d_features[chunk])
            d_weight.addmm_(d_logits.T, x)
            if d_bias is not None:
                d_bias.add_(d_logits.sum(0))
        return d_features, d_weight, d_bias, None


def _nll_of_chunk(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor
) -> tuple[Tensor, Tensor]:
    """NLL [n] and probabilities [n, V]; the logits' buffer becomes the probabilities."""
    logits = nn.functional.linear(x, weight, bias)
    normaliser = logits.logsumexp(1)
    nll = normaliser - logits.gather(1, y[:, None]).squeeze(1)
    return nll, logits.sub_(normaliser[:, None]).exp_()


def linear_nll(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """−log softmax(W x + b)[target] in nats per token, never holding the whole [N, V] logits."""
    nll: Tensor = _LinearNLL.apply(features, weight, bias, targets)  # type: ignore[no-untyped-call]
    return nll


class SoftmaxHead(nn.Module):
    """y = softmax(W_S P h + b), with the projection P only where sizes differ under tying.

    Args:
        tied: the embedding's weight [V, E] to share (Press & Wolf 2017), or None.
    """

    def __init__(
        self, feature_size: int, vocab_size: int, *, tied: Tensor | None, bias: bool
    ) -> None:
        super().__init__()
        self.tied = tied is not None
        self.weight = tied if tied is not None else nn.Parameter(
            torch.empty(vocab_size, feature_size)
        )  # fmt: skip
        self.bias = nn.Parameter(torch.empty(vocab_size)) if bias else None
        inner = self.weight.shape[1]
        self.projection = (
            nn.Parameter(torch.empty(inner, feature_size)) if inner != feature_size else None
        )

    def _project(self, features: Tensor) -> Tensor:
        if self.projection is None:
            return features
        return nn.functional.linear(features, self.projection)

    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Nats per target; what training and evaluation use."""
        return linear_nll(self._project(features), self.weight, self.bias, targets)

    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        """Log-probabilities of the whole vocabulary; what sampling and scoring use."""
        logits = nn.functional.linear(self._project(features), self.weight, self.bias)
        return logits.log_softmax(-1)
