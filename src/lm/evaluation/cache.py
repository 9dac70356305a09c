"""The neural cache: words of the recent past are likelier where the model is in a like state.

Grave, Joulin & Usunier 2017, "Improving neural language models with a continuous cache". Beside
what the model says stands a distribution over the words of the last positions i < t, each weighted
by how much the features h_i before it resemble those of now (equation 2), and both are mixed
linearly (equation 3):

    p_cache(w) ∝ Σ_i 1[w = x_{i+1}] exp(θ h_t · h_i),    p = (1 − λ) p_model + λ p_cache

h is what enters the head. Nothing is learned.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm import checks
from lm.evaluation.interpolation import mix, mixture_weights
from lm.evaluation.method import Method, gather
from lm.evaluation.text import Text
from lm.models import RecurrentModel
from lm.models.base import State

# Similarities of one go: 16 MB in float32.
_ELEMENTS = 1 << 22
_FEWEST_ROWS = 64
# θ times the mean of |h|², which makes the search independent of the size of a layer.
_COARSE = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_FINE = tuple(2 ** (k / 4) for k in range(-3, 4))
_SCALE_TOKENS = 1000


@dataclass(kw_only=True, slots=True)
class CacheConfig:
    """The neural cache.

    Attributes:
        window: how many positions it holds.
        theta: θ, how sharply it prefers like states; None is tuned on the validation split.
        weight: λ, its share of the mixture; None is tuned on the validation split.
    """

    window: int = 2000
    theta: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        checks.at_least("cache.window", self.window, 1)
        checks.at_most("cache.window", self.window, checks.MOST_HELD)
        checks.non_negative("cache.theta", self.theta)
        checks.fraction("cache.weight", self.weight)


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of text as a model saw it.

    Attributes:
        nll: nats of each target.
        features: what entered the head.
        resets: where the state was reset, as in `Window`.
    """

    targets: Int[Tensor, " T"]
    nll: Float[Tensor, " T"]
    features: Float[Tensor, "T F"]
    resets: Bool[Tensor, " T"] | None = None


Steps = Callable[[Text], Generator[Step, None, None]]


class NeuralCache:
    """The cache itself, for several θ at once: asked about a step, then it holds that step too."""

    def __init__(self, window: int, thetas: Sequence[float]) -> None:
        self.window = window
        self.thetas = thetas
        self._keys: Float[Tensor, "S F"] | None = None
        self._words: Int[Tensor, " S"] | None = None

    def log_prob(self, step: Step) -> Float[Tensor, "K T"]:
        """log p_cache of each target for each θ.

        An empty cache says what the model says, so that mixing the two changes nothing.
        """
        rows = min(_ELEMENTS // self.window, max(self.window, _FEWEST_ROWS)) or 1
        parts = [
            self._part(step, slice(begin, begin + rows))
            for begin in range(0, len(step.targets), rows)
        ]
        return torch.cat(parts, dim=1)

    def _part(self, step: Step, some: slice) -> Float[Tensor, "K C"]:
        queries, wanted = step.features[some], step.targets[some]
        keys = queries if self._keys is None else torch.cat([self._keys, queries])
        words = wanted if self._words is None else torch.cat([self._words, wanted])
        here = torch.arange(len(keys) - len(queries), len(keys), device=keys.device)
        oldest = (here - self.window).clamp(min=0)
        if step.resets is not None:
            # The latest reset up to here; what was before it is forgotten.
            oldest = oldest.maximum((here * step.resets[some].to(here.device)).cummax(0).values)
        there = torch.arange(len(keys), device=keys.device)
        held = (there < here[:, None]) & (there >= oldest[:, None])
        hits = held & (words == wanted[:, None])
        similar = queries @ keys.T
        result = torch.stack([_log_share(theta * similar, hits, held) for theta in self.thetas])
        kept = slice(max(int(oldest[-1]), len(keys) - self.window), None)
        self._keys, self._words = keys[kept], words[kept]
        return torch.where(held.any(1), result, -step.nll[some])


def _log_share(
    scores: Float[Tensor, "C S"], hits: Bool[Tensor, "C S"], held: Bool[Tensor, "C S"]
) -> Float[Tensor, " C"]:
    """log of Σ exp over the hits ÷ Σ exp over all that is held."""
    nothing = float("-inf")
    among = scores.masked_fill(~hits, nothing).logsumexp(1)
    return among - scores.masked_fill(~held, nothing).logsumexp(1)


class Cache(Method):
    """A model with a neural cache beside it.

    Args:
        steps: reads a text; None is with the model as it is.
        tune_tokens: how much of validation text is tuned on, unless that is limited already.
    """

    def __init__(
        self,
        model: RecurrentModel,
        config: CacheConfig,
        *,
        steps: Steps | None = None,
        tune_tokens: int | None = None,
        name: str = "cache",
        window: int,
    ) -> None:
        super().__init__(name)
        self.config = config
        self.theta, self.weight = config.theta, config.weight
        self.model = model
        self.window = window
        self.steps = steps or self._read
        self.tune_tokens = tune_tokens

    @property
    def values(self) -> dict[str, float]:
        found = {"theta": self.theta, "weight": self.weight}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def needs_tuning(self) -> bool:
        return self.theta is None or self.weight is None

    def tune(self, valid: Text) -> None:
        """The best λ for each θ of a grid, and again on a finer one around the best."""
        if not self.needs_tuning:
            return
        valid = valid.beginning(self.tune_tokens)
        self.tuned_on = valid.describe()
        if self.theta is not None:
            _, self.theta, self.weight = self._best(valid, [self.theta])
            return
        unit = 1 / self._mean_square(valid)
        found = self._best(valid, [unit * factor for factor in _COARSE])
        if found[1]:
            found = min(found, self._best(valid, [found[1] * factor for factor in _FINE]))
        _, self.theta, self.weight = found

    def _best(self, valid: Text, thetas: Sequence[float]) -> tuple[float, float, float]:
        """Nats per token, θ and λ of the best of some θ."""
        model, *caches = self._log_probs(valid, thetas)
        given = self.config.weight
        found = []
        for theta, cache in zip(thetas, caches, strict=True):
            both = torch.stack([model, cache])
            weights = mixture_weights(both) if given is None else _pair(given)
            found.append((-mix(both, weights).mean().item(), theta, weights[1].item()))
        return min(found)

    def _mean_square(self, valid: Text) -> float:
        beginning = self._read(valid.first(_SCALE_TOKENS))
        return gather(beginning, lambda step: step.features.square().sum(1)).mean().item()

    def _predict(self, text: Text) -> Float[Tensor, " N"]:
        assert self.theta is not None
        assert self.weight is not None
        return -mix(self._log_probs(text, [self.theta]), _pair(self.weight))

    def _log_probs(self, text: Text, thetas: Sequence[float]) -> Float[Tensor, "K N"]:
        """log p of each target, by the model and by the cache of each θ."""
        cache = NeuralCache(self.config.window, thetas)
        return gather(
            self.steps(text), lambda step: torch.cat([-step.nll[None], cache.log_prob(step)])
        )

    @torch.no_grad()
    def _read(self, text: Text) -> Generator[Step, None, None]:
        state: State | None = None
        device = self.model.device
        for part in text.windows(self.window, self.name):
            tokens, targets = part.tokens.to(device), part.targets.to(device)[:, 0]
            features, state = self.model.features(tokens, state, resets=part.resets)
            features = features[:, 0]
            resets = None if part.resets is None else part.resets[:, 0]
            yield Step(targets, self.model.head.nll(features, targets), features, resets)


def _pair(weight: float) -> Float[Tensor, "2"]:
    """The weights of model and cache."""
    return torch.tensor([1 - weight, weight], dtype=torch.float64)
