"""Temperature: log-probabilities divided by τ and normalised again, with the best τ for a text."""

from collections.abc import Generator

import torch
from jaxtyping import Float
from torch import Tensor

from lm.evaluation.method import Method, gather
from lm.evaluation.text import Text
from lm.models import LanguageModel
from lm.models.base import State

# Log-probabilities of one go: 4 MB in float32, so that they stay in the processor's cache.
_ELEMENTS = 1 << 20
_MOST_STEPS = 30
_ACCURACY = 1e-4
# Derivatives of no more than rounding: at the minimum, or of a model that is uniform anyway.
_FLAT = 1e-6


class Temperature(Method):
    """p_τ(w) ∝ p(w)^(1/τ).

    In β = 1/τ the loss log Σ_w p(w)^β − β log p(target) is convex, with the slope
    E_β[log p] − log p(target) and the curvature Var_β[log p], so that Newton's method finds the
    best τ in a few passes over the text.

    Args:
        value: τ; None is to be tuned.
    """

    def __init__(self, model: LanguageModel, *, window: int, value: float | None) -> None:
        super().__init__("temperature")
        self.model = model
        self.window = max(1, min(window, _ELEMENTS // model.vocab_size))
        self.value = value

    @property
    def values(self) -> dict[str, float]:
        return {} if self.value is None else {"temperature": self.value}

    @property
    def needs_tuning(self) -> bool:
        return self.value is None

    def tune(self, valid: Text) -> None:
        if self.value is None:
            self.value = 1 / self._best(valid)
            self.tuned_on = valid.describe()

    def _best(self, text: Text) -> float:
        """The β of least loss, by Newton steps inside a bracket that each slope narrows."""
        beta, low, high = 1.0, 0.0, float("inf")
        for _ in range(_MOST_STEPS):
            slope, curvature = self._derivatives(text, beta)
            if abs(slope) <= _FLAT:
                return beta
            low, high = (low, beta) if slope > 0 else (beta, high)
            new = beta - slope / max(curvature, _FLAT)
            if not low < new < high:
                new = 2 * beta if high == float("inf") else (low + high) / 2
            if abs(new - beta) <= _ACCURACY * beta:
                return new
            beta = new
        return beta

    def _derivatives(self, text: Text, beta: float) -> tuple[float, float]:
        """First and second derivative of the loss in β, in nats per token."""

        def of_part(part: tuple[Tensor, Tensor]) -> Tensor:
            log_p, wanted = part
            p = (beta * log_p).softmax(-1)
            mean = p.mul_(log_p).sum(-1)
            mean_square = p.mul_(log_p).sum(-1)
            return torch.stack([mean - wanted, mean_square - mean.square()])

        slope, curvature = gather(self._parts(text, "tune temperature on"), of_part).mean(-1)
        return slope.item(), curvature.item()

    def _predict(self, text: Text) -> Float[Tensor, " N"]:
        assert self.value is not None
        beta = 1 / self.value
        return gather(
            self._parts(text, self.name),
            lambda part: (beta * part[0]).logsumexp(-1) - beta * part[1],
        )

    @torch.no_grad()
    def _parts(self, text: Text, doing: str) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Log-probabilities of all words [T, V], and of the targets [T]."""
        state: State | None = None
        for part in text.windows(self.window, doing):
            tokens, targets = part.tokens.to(self.model.device), part.targets.to(self.model.device)
            log_p, state = self.model.log_prob(tokens, state, resets=part.resets)
            # A word without probability has none at any temperature; −∞ would spoil the products.
            log_p = log_p[:, 0].clamp_(min=-1e4)
            yield log_p, log_p.gather(1, targets).squeeze(1)
