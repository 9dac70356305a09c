"""Mixture of softmaxes (Yang et al. 2018, Breaking the softmax bottleneck, equations 2 and 3).

    p(w | h) = Σ_k π_k softmax(W tanh(P_k h + a_k) + b)_w,   π = softmax(W_π h)

The logarithm of one softmax is a matrix of low rank in contexts × words; of a mixture it is not.
A training step costs K softmaxes, each computed twice (once for its share in the mixture, once for
the gradient), and never holds the [N·K, V] logits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm import checks
from lm.models.embedding import TiedGradient
from lm.models.head import Draws, Head
from lm.models.init import InitConfig, fill, uniform_by_size
from lm.models.kernels.nll import linear_nll, row_nll
from lm.runtime.randomness import Noise


@dataclass(kw_only=True, slots=True)
class MixtureConfig:
    """The mixture.

    Attributes:
        experts: K, the number of softmaxes.
        size: of the space in which they meet the words when the head is untied; None is that of
            the features. A tied head's is the embedding's.
    """

    experts: int = 10
    size: int | None = None

    def __post_init__(self) -> None:
        checks.at_least("model.mixture.experts", self.experts, 1)
        checks.at_most("model.mixture.experts", self.experts, 1 << 12)
        checks.at_least("model.mixture.size", self.size, 1)
        checks.at_most("model.mixture.size", self.size, 1 << 20)


class MixtureHead(Head):
    """K softmaxes over one set of word vectors.

    Args:
        tied: the embedding's weight [V, E] to share, or None.
        dropout: rate on what enters the softmaxes, one mask per stream for all steps of a window.
    """

    def __init__(
        self,
        feature_size: int,
        vocab_size: int,
        config: MixtureConfig,
        *,
        tied: Tensor | None,
        bias: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocab_size, tied=tied is not None)
        self.config = config
        self.dropout = dropout
        inner = config.size or feature_size if tied is None else tied.shape[1]
        self.weight = tied if tied is not None else nn.Parameter(torch.empty(vocab_size, inner))
        self.bias = nn.Parameter(torch.empty(vocab_size)) if bias else None
        self.prior = nn.Parameter(torch.empty(config.experts, feature_size))
        self.latent = nn.Parameter(torch.empty(config.experts * inner, feature_size))
        self.latent_bias = nn.Parameter(torch.empty(config.experts * inner))

    def loss(
        self,
        features: Float[Tensor, "N F"],
        targets: Int[Tensor, " N"],
        *,
        dtype: torch.dtype | None = None,
        tied: TiedGradient | None = None,
        noise: Noise | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
        log_prior, x = self._mix(features, noise)
        wide = targets.repeat_interleave(self.config.experts)
        own = self.weight, self.bias, wide
        dtype = dtype or self.weight.dtype
        nll = row_nll(x, *own, dtype=dtype, way=self._way(x, *own, dtype))
        mixed = -(log_prior - nll.view_as(log_prior)).logsumexp(-1)
        return mixed.mean(), mixed.detach()

    def _mix(self, features: Tensor, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        """log π [N, K], and what enters the softmaxes [N·K, E], the K of a token in a row."""
        features = features.to(self.prior.dtype)  # of a cell that multiplies in bf16
        log_prior = nn.functional.linear(features, self.prior).log_softmax(-1)
        x = nn.functional.linear(features, self.latent, self.latent_bias).tanh()
        if noise is not None and self.dropout:
            streams = len(range(*noise.streams.indices(noise.num_streams)))
            shape = (1, streams, x.shape[-1])
            keep = noise.keep_mask("dropout.latent", shape, self.dropout, stream_dim=1, like=x)
            x = (x.view(-1, *shape[1:]) * keep).view_as(x)
        return log_prior, x.view(-1, self.weight.shape[1])

    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        log_prior, x = self._mix(features)
        wide = targets.repeat_interleave(self.config.experts)
        nll = linear_nll(x, self.weight, self.bias, wide)
        return -(log_prior - nll.view_as(log_prior)).logsumexp(-1)

    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        flat = features.reshape(-1, features.shape[-1])
        log_prior, x = self._mix(flat)
        # One softmax at a time: all K of them would be K times the result.
        # Sizes by `shape`: `len` would fix them in a program that is exported.
        x, total = x.view(flat.shape[0], self.config.experts, self.weight.shape[1]), None
        for k in range(self.config.experts):
            logits = nn.functional.linear(x[:, k], self.weight, self.bias)
            term = logits.log_softmax(-1) + log_prior[:, k, None]
            total = term if total is None else torch.logaddexp(total, term)
        assert total is not None
        return total.view(*features.shape[:-1], self.weight.shape[0])

    def initialise(self, init: InitConfig, draws: Draws, counts: Int[Tensor, " V"] | None) -> None:
        if not self.tied:
            plain = uniform_by_size(self.weight.shape[1])
            fill(self.weight.data, init.output, draws("weight"), default=plain)
        inner = uniform_by_size(self.latent.shape[1])
        for name, tensor in (("prior", self.prior), ("latent", self.latent)):
            fill(tensor.data, init.input, draws(name), default=inner)
        fill(self.latent_bias.data, init.bias, draws("latent_bias"), default=inner)
        if self.bias is not None:
            fill(self.bias.data, init.output_bias, draws("bias"), default=inner)
