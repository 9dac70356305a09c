"""Adaptive softmax (Grave et al. 2017, Efficient softmax approximation for GPUs, section 4).

The most frequent words and one entry per cluster of the others share a small softmax; a cluster's
words have a softmax of their own, in a smaller space the rarer they are. A rare word's probability
is that of its cluster times that within it: a distribution, not an approximation of one. A word's
rank by frequency in the training text decides where it belongs, and is kept with the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm import checks
from lm.errors import CheckpointError, ConfigError
from lm.models.embedding import TiedGradient
from lm.models.head import Draws, Head, initialise_projection, project, projection_between
from lm.models.init import InitConfig, PartInit, fill, uniform_by_size
from lm.models.kernels.nll import linear_loss, linear_nll
from lm.runtime.randomness import Noise


@dataclass(kw_only=True, slots=True)
class AdaptiveConfig:
    """The clusters.

    Attributes:
        cutoffs: ranks at which clusters begin; the words before the first are in the head. None is
            a tenth and a half of the vocabulary.
        divisor: cluster i has features of size F / divisorⁱ, i = 1, 2, …; with 1 they keep the size
            and may share the embedding's vectors.
    """

    cutoffs: list[int] | None = None
    divisor: float = 4.0

    def __post_init__(self) -> None:
        checks.finite("model.adaptive.divisor", self.divisor)
        checks.at_least("model.adaptive.divisor", self.divisor, 1)
        if self.cutoffs is not None:
            checks.at_least("len(model.adaptive.cutoffs)", len(self.cutoffs), 1)
            checks.at_most("len(model.adaptive.cutoffs)", len(self.cutoffs), 1000)
        for low, high in pairwise([0, *(self.cutoffs or [1])]):
            if low >= high:
                raise ConfigError(
                    f"model.adaptive.cutoffs must rise from 1 on, got {self.cutoffs}",
                    "Set for instance model.adaptive.cutoffs=[2000,10000].",
                )

    def edges(self, vocab_size: int) -> list[int]:
        """Where head and clusters begin and end: 0, the cutoffs, V.

        Raises:
            ConfigError: a cutoff leaves its cluster without a word.
        """
        cutoffs = self.cutoffs
        if cutoffs is None:
            cutoffs = sorted({max(1, vocab_size // 10), max(1, vocab_size // 2)})
        if cutoffs and cutoffs[-1] >= vocab_size:
            raise ConfigError(
                f"model.adaptive.cutoffs must be < the vocabulary of {vocab_size}, got {cutoffs}",
                "Set smaller cutoffs, or model.head=softmax.",
            )
        return [0, *cutoffs, vocab_size]


class AdaptiveHead(Head):
    """Words by rank in a head and clusters.

    Args:
        tied: the embedding's weight [V, E] to share, or None; needs `divisor` 1.

    Attributes:
        rank: of each word by falling frequency, 0 first.
    """

    on_device = False  # how many targets a cluster has in a window decides what is computed
    rank: Tensor

    def __init__(
        self,
        feature_size: int,
        vocab_size: int,
        config: AdaptiveConfig,
        *,
        tied: Tensor | None,
        bias: bool,
    ) -> None:
        super().__init__(vocab_size, tied=tied is not None)
        assert tied is None or config.divisor == 1
        self.edges = config.edges(vocab_size)
        self.register_buffer("rank", torch.arange(vocab_size))
        num_clusters = len(self.edges) - 2
        # Not registered: it is the embedding's.
        self._shared = [] if tied is None else [tied]
        inner = feature_size if tied is None else tied.shape[1]
        self.projection = projection_between(feature_size, inner)
        self.clusters = nn.Parameter(torch.empty(num_clusters, inner))
        self.weights, self.downs = nn.ParameterList(), nn.ParameterList()
        for k, size in enumerate(self._part_sizes):
            width = max(1, int(inner / config.divisor**k))
            if tied is None:
                self.weights.append(nn.Parameter(torch.empty(size, width)))
            if width != inner:
                self.downs.append(nn.Parameter(torch.empty(width, inner)))
        lengths = [self._part_sizes[0] + num_clusters, *self._part_sizes[1:]]
        self.biases = nn.ParameterList(nn.Parameter(torch.empty(n)) for n in lengths if bias)

    @property
    def _part_sizes(self) -> list[int]:
        """Words of the head, and of each cluster."""
        return [high - low for low, high in pairwise(self.edges)]

    def _parts(self) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Of head and clusters: output weight, bias, and the way down to their space."""
        words = list(self.weights)
        if self._shared:
            words = list(torch.split(self._shared[0][self.rank.argsort()], self._part_sizes))
        words[0] = torch.cat([words[0], self.clusters])
        biases = list(self.biases) or [None] * len(words)
        downs = [None] * (len(words) - len(self.downs)) + list(self.downs)
        return list(zip(words, biases, downs, strict=True))

    def _places(self, targets: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Each target's rank, its entry in the head, and by cluster which targets lie there."""
        rank, first = self.rank[targets], self.edges[1]
        cuts = torch.tensor(self.edges[1:-1], device=rank.device)
        cluster = torch.bucketize(rank, cuts, right=True)
        entry = torch.where(cluster == 0, rank, first + cluster - 1)
        rows = [(cluster == k + 1).nonzero().squeeze(1) for k in range(len(cuts))]
        return rank, entry, rows

    def loss(
        self,
        features: Float[Tensor, "N F"],
        targets: Int[Tensor, " N"],
        *,
        dtype: torch.dtype | None = None,
        tied: TiedGradient | None = None,
        noise: Noise | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
        x = project(features, self.projection, dtype)
        rank, entry, clusters = self._places(targets)
        (weight, bias, _), *tails = self._parts()
        way = self._way(x, weight, bias, entry, dtype or weight.dtype)
        objective, nll = linear_loss(x, weight, bias, entry, dtype=dtype, way=way)
        for (weight, bias, down), low, rows in zip(tails, self.edges[1:], clusters, strict=False):
            if not len(rows):
                continue
            inside = project(x[rows], down, dtype)
            share = weight.new_full((len(rows),), 1 / len(targets))
            some, part = linear_loss(
                inside, weight, bias, rank[rows] - low, share=share, dtype=dtype
            )
            objective = objective + some
            nll = nll.index_add(0, rows, part)
        return objective, nll

    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        x = project(features, self.projection)
        rank, entry, clusters = self._places(targets)
        (weight, bias, _), *tails = self._parts()
        nll = linear_nll(x, weight, bias, entry)
        for (weight, bias, down), low, rows in zip(tails, self.edges[1:], clusters, strict=False):
            part = linear_nll(project(x[rows], down), weight, bias, rank[rows] - low)
            nll.index_add_(0, rows, part)
        return nll

    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        x, first = project(features, self.projection), self.edges[1]
        (weight, bias, _), *tails = self._parts()
        top = nn.functional.linear(x, weight, bias).log_softmax(-1)
        by_rank = [top[..., :first]]
        for k, (weight, bias, down) in enumerate(tails):
            inside = nn.functional.linear(project(x, down), weight, bias).log_softmax(-1)
            by_rank.append(inside + top[..., first + k, None])
        return torch.cat(by_rank, -1)[..., self.rank]

    def initialise(self, init: InitConfig, draws: Draws, counts: Int[Tensor, " V"] | None) -> None:
        if counts is not None:
            order = counts.argsort(descending=True, stable=True)
            self.rank[order] = torch.arange(len(order))
        plain = uniform_by_size(self.clusters.shape[1])
        parts: list[tuple[str, PartInit, nn.ParameterList | list[nn.Parameter]]] = [
            ("clusters", init.output, [self.clusters]),
            ("weights", init.output, self.weights),
            ("downs", init.input, self.downs),
            ("biases", init.output_bias, self.biases),
        ]
        for name, part, parameters in parts:
            for k, parameter in enumerate(parameters):
                fill(parameter.data, part, draws(f"{name}.{k}"), default=plain)
        initialise_projection(self.projection, init, draws)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        rank = tensors["head.rank"]
        if not torch.equal(rank.sort().values, torch.arange(len(self.rank))):
            raise CheckpointError(
                "head.rank in the checkpoint is no order of the vocabulary",
                "Use another checkpoint.",
            )
