"""From features to a distribution over the vocabulary, and the loss: what every head has.

The softmax itself is here; `adaptive` and `mixture` hold the other two.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from lm.models.assessment import Expected, joined, of_log_prob, of_softmax, rows_at_once
from lm.models.embedding import TiedGradient, embed
from lm.models.init import InitConfig, Scheme, fill, uniform_by_size
from lm.models.kernels.nll import Way, linear_loss, linear_nll, ways
from lm.models.kernels.sampled import Sample, sampled_loss
from lm.runtime.compute import Compute, Kernels
from lm.runtime.randomness import Noise

# Site of a draw → its generator.
Draws = Callable[[str], Generator]


class Head(nn.Module):
    """Features [N, F] to distributions over V words.

    Attributes:
        tied: words share their vectors with the embedding (Press & Wolf 2017).
        compute: where, and by which kernels.
        on_device: the loss never asks the host, so that a CUDA graph can hold it.
    """

    on_device = True

    def __init__(self, vocab_size: int, *, tied: bool) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.tied = tied
        self.compute = Compute()

    @abstractmethod
    def loss(
        self,
        features: Float[Tensor, "N F"],
        targets: Int[Tensor, " N"],
        *,
        dtype: torch.dtype | None = None,
        tied: TiedGradient | None = None,
        noise: Noise | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
        """Mean nats per target, which has a gradient, and nats per target, which have none.

        Args:
            dtype: of the operands of products; None is that of the weights.
            tied: may take the shared weight's gradient along to the embedding.
            noise: of the training step, for what is random in the head; rows are time-major.
        """

    @abstractmethod
    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Nats per target, without a gradient: for evaluation."""

    @abstractmethod
    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        """Log-probabilities of the whole vocabulary; what sampling and scoring use."""

    @torch.no_grad()
    def assess(self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]) -> Expected:
        """What the distributions say of their targets: nats, entropy and rank, each [N]."""
        step = rows_at_once(self.vocab_size)
        rows = [slice(begin, begin + step) for begin in range(0, len(features), step)]
        return joined([of_log_prob(self.log_prob(features[k]), targets[k]) for k in rows])

    @abstractmethod
    def initialise(self, init: InitConfig, draws: Draws, counts: Int[Tensor, " V"] | None) -> None:
        """Fill the parameters, each from the generator of its name.

        Args:
            counts: of each word in the training text; None is no training.
        """

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Look at what is about to be loaded, beyond names and shapes; nothing by default.

        Raises:
            CheckpointError: it cannot be this head's.
        """

    @torch.no_grad()
    def _way(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
    ) -> Way:
        """The fastest way to a softmax's loss and gradient, unless `compute.kernels` asks for
        torch's.
        """
        found = ways(weight, dtype)
        if len(found) == 1 or self.compute.kernels in (Kernels.torch, Kernels.reference):
            return found["torch"]
        x, weight = x.detach(), weight.detach()

        def trial(way: Way) -> None:
            share = weight.new_full((len(x),), 1 / len(x))
            way(x.to(dtype), weight, bias, targets, share, weight_too=True)

        question = f"softmax loss {len(weight)} {x.shape[1]} {dtype} of {', '.join(found)}"
        trials = {name: partial(trial, way) for name, way in found.items()}
        return found[self.compute.choices.fastest(question, trials)]


class SoftmaxHead(Head):
    """y = softmax(W_S P h + b), with the projection P only where sizes differ under tying.

    Args:
        tied: the embedding's weight [V, E] to share, or None.
        smoothing: ε of label smoothing, in the objective alone.

    Attributes:
        rows: the words whose rows are here, of how many; None is all.
    """

    rows: tuple[range, int] | None = None

    def __init__(
        self,
        feature_size: int,
        vocab_size: int,
        *,
        tied: Tensor | None,
        bias: bool,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(vocab_size, tied=tied is not None)
        self.smoothing = smoothing
        self.weight = tied if tied is not None else nn.Parameter(
            torch.empty(vocab_size, feature_size)
        )  # fmt: skip
        self.bias = nn.Parameter(torch.empty(vocab_size)) if bias else None
        self.projection = projection_between(feature_size, self.weight.shape[1])

    def loss(
        self,
        features: Float[Tensor, "N F"],
        targets: Int[Tensor, " N"],
        *,
        dtype: torch.dtype | None = None,
        tied: TiedGradient | None = None,
        noise: Noise | None = None,
        sample: Sample | None = None,
        sparse: bool = False,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
        """As every head's.

        Args:
            sample: words that stand for all in the normaliser; None is the whole softmax.
            sparse: of a sampled softmax, the weight's gradient has only the rows that took part.
        """
        x, own = project(features, self.projection, dtype), (self.weight, self.bias, targets)
        if sample is not None:
            return sampled_loss(x, *own, sample, dtype=dtype, tied=tied, sparse=sparse)
        way = self._way(x, *own, dtype or self.weight.dtype)
        objective, nll = linear_loss(x, *own, dtype=dtype, tied=tied, way=way)
        if self.smoothing and noise is not None:
            objective = objective + self.smoothing * self._excess(x, targets)
        return objective, nll

    def _excess(self, x: Float[Tensor, "N F"], targets: Int[Tensor, " N"]) -> Float[Tensor, ""]:
        """What a uniform target costs more than the true one: mean of z_target − mean_w z_w.

        With log p_w = z_w − log Z the smoothed loss (1 − ε) nll − ε mean_w log p_w equals
        nll + ε (z_target − mean_w z_w), which needs no sum over the vocabulary for each token.
        """
        x = x.float()
        centre = self.weight.mean(0)
        excess = (x * (embed(targets, self.weight) - centre)).sum(-1).mean()
        if self.bias is not None:
            excess = excess + self.bias[targets].mean() - self.bias.mean()
        return excess

    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return linear_nll(project(features, self.projection), self.weight, self.bias, targets)

    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        x = project(features, self.projection)
        return nn.functional.linear(x, self.weight, self.bias).log_softmax(-1)

    def assess(self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]) -> Expected:
        return of_softmax(project(features, self.projection), self.weight, self.bias, targets)

    def initialise(self, init: InitConfig, draws: Draws, counts: Int[Tensor, " V"] | None) -> None:
        plain = uniform_by_size(self.weight.shape[1])
        if not self.tied:
            fill(self.weight.data, init.output, draws("weight"), default=plain, rows=self.rows)
        if self.bias is not None and init.output_bias.kind is Scheme.unigram:
            if counts is not None:  # without, the weights come from elsewhere
                # Half a count for a token that never occurs (Krichevsky & Trofimov 1981).
                smoothed = counts.double() + 0.5
                shares = (smoothed / smoothed.sum()).log()
                own = range(len(shares)) if self.rows is None else self.rows[0]
                self.bias.data.copy_(shares[own.start : own.stop])
        elif self.bias is not None:
            fill(self.bias.data, init.output_bias, draws("bias"), default=plain, rows=self.rows)
        initialise_projection(self.projection, init, draws)


def projection_between(feature_size: int, inner: int) -> nn.Parameter | None:
    """P [E, F] from features to the space of word vectors; None where the sizes agree."""
    return nn.Parameter(torch.empty(inner, feature_size)) if inner != feature_size else None


def project(
    features: Tensor, projection: Tensor | None, dtype: torch.dtype | None = None
) -> Tensor:
    """P h in a dtype; h where there is no projection."""
    if projection is None:
        return features
    dtype = dtype or features.dtype
    return nn.functional.linear(features.to(dtype), projection.to(dtype))


def initialise_projection(projection: nn.Parameter | None, init: InitConfig, draws: Draws) -> None:
    """Fill P like an input matrix."""
    if projection is not None:
        inner = uniform_by_size(projection.shape[1])
        fill(projection.data, init.input, draws("projection"), default=inner)
