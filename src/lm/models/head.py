"""From features to a distribution over the vocabulary, and the loss."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm.models.embedding import TiedGradient
from lm.models.kernels.nll import Way, linear_loss, linear_nll, ways
from lm.models.kernels.sampled import Sample, sampled_loss
from lm.runtime.compute import Compute, Kernels


class SoftmaxHead(nn.Module):
    """y = softmax(W_S P h + b), with the projection P only where sizes differ under tying.

    Args:
        tied: the embedding's weight [V, E] to share (Press & Wolf 2017), or None.

    Attributes:
        compute: where, and by which kernels.
    """

    def __init__(
        self, feature_size: int, vocab_size: int, *, tied: Tensor | None, bias: bool
    ) -> None:
        super().__init__()
        self.compute = Compute()
        self.tied = tied is not None
        self.weight = tied if tied is not None else nn.Parameter(
            torch.empty(vocab_size, feature_size)
        )  # fmt: skip
        self.bias = nn.Parameter(torch.empty(vocab_size)) if bias else None
        inner = self.weight.shape[1]
        self.projection = (
            nn.Parameter(torch.empty(inner, feature_size)) if inner != feature_size else None
        )

    def _project(self, features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        if self.projection is None:
            return features
        dtype = dtype or features.dtype
        return nn.functional.linear(features.to(dtype), self.projection.to(dtype))

    def loss(
        self,
        features: Float[Tensor, "N F"],
        targets: Int[Tensor, " N"],
        *,
        dtype: torch.dtype | None = None,
        tied: TiedGradient | None = None,
        sample: Sample | None = None,
        sparse: bool = False,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
        """Mean nats per target, which has a gradient, and nats per target, which have none.

        Args:
            dtype: of the operands of products; None is that of the weights.
            tied: takes the shared weight's gradient along to the embedding.
            sample: words that stand for all in the normaliser; None is the whole softmax.
            sparse: of a sampled softmax, the weight's gradient has only the rows that took part.
        """
        x, own = self._project(features, dtype), (self.weight, self.bias, targets)
        if sample is None:
            way = self._way(x.detach(), targets, dtype or self.weight.dtype)
            return linear_loss(x, *own, dtype=dtype, tied=tied, way=way)
        return sampled_loss(x, *own, sample, dtype=dtype, tied=tied, sparse=sparse)

    @torch.no_grad()
    def _way(self, x: Tensor, targets: Tensor, dtype: torch.dtype) -> Way:
        """The fastest way to loss and gradient, unless `compute.kernels` asks for torch's."""
        found = ways(self.weight, dtype)
        if len(found) == 1 or self.compute.kernels in (Kernels.torch, Kernels.reference):
            return found["torch"]

        def trial(way: Way) -> None:
            share = self.weight.new_full((len(x),), 1 / len(x))
            way(x.to(dtype), self.weight, self.bias, targets, share, weight_too=True)

        question = f"softmax loss {len(self.weight)} {x.shape[1]} {dtype} of {', '.join(found)}"
        trials = {name: partial(trial, way) for name, way in found.items()}
        return found[self.compute.choices.fastest(question, trials)]

    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Nats per target, without a gradient: for evaluation."""
        return linear_nll(self._project(features), self.weight, self.bias, targets)

    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        """Log-probabilities of the whole vocabulary; what sampling and scoring use."""
        logits = nn.functional.linear(self._project(features), self.weight, self.bias)
        return logits.log_softmax(-1)
