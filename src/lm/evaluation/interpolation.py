"""Linear interpolation: p = Σ_k w_k p_k, with the weights that predict validation text best."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lm.evaluation.method import Method
from lm.evaluation.text import Text

_MOST_STEPS = 1000
_ACCURACY = 1e-6


class Interpolated(Method):
    """A method's distribution mixed with those of others over the same vocabulary.

    Only the targets' probabilities are needed, so that anything may take part that has them.
    """

    def __init__(self, base: Method, others: Sequence[Method]) -> None:
        super().__init__(f"{base.name}+interpolated")
        self.parts = [base, *others]
        self.weights: Float[Tensor, " K"] | None = None

    @property
    def values(self) -> dict[str, float]:
        if self.weights is None:
            return {}
        names = [part.name for part in self.parts]
        return dict(zip(names, self.weights.tolist(), strict=True))

    @property
    def needs_tuning(self) -> bool:
        return self.weights is None

    def tune(self, valid: Text) -> None:
        self.weights = mixture_weights(self._log_probs(valid))
        self.tuned_on = valid.describe()

    def _predict(self, text: Text) -> Float[Tensor, " N"]:
        assert self.weights is not None
        return -mix(self._log_probs(text), self.weights)

    def _log_probs(self, text: Text) -> Float[Tensor, "K N"]:
        return -torch.stack([part.nats(text) for part in self.parts])


def mix(log_probs: Float[Tensor, "K N"], weights: Float[Tensor, " K"]) -> Float[Tensor, " N"]:
    """log Σ_k w_k p_k; a weight may be zero, and so may a probability."""
    return (log_probs + weights.log()[:, None]).logsumexp(0)


def mixture_weights(log_probs: Float[Tensor, "K N"]) -> Float[Tensor, " K"]:
    """The weights of largest likelihood, by expectation maximisation from equal ones.

    w_k ← mean_n w_k p_k(n) / Σ_j w_j p_j(n) (Jelinek & Mercer 1980). The likelihood is concave in
    the weights, so that this is the largest there is.
    """
    weights = log_probs.new_full((len(log_probs),), 1 / len(log_probs))
    for _ in range(_MOST_STEPS):
        posterior = (log_probs + weights.log()[:, None]).softmax(0)
        before, weights = weights, posterior.mean(1)
        if (weights - before).abs().amax() < _ACCURACY:
            break
    return weights
