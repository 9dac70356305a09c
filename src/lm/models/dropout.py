"""Dropout with masks of our own, so that a run can resume exactly and be split over processes."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lm import checks
from lm.runtime.randomness import Noise


@dataclass(kw_only=True, slots=True)
class DropoutConfig:
    """Dropout rates by place (Zaremba et al. 2014: on non-recurrent connections only).

    Attributes:
        embedding: on the embedded input.
        between: on the output of every layer but the last.
        output: on the last layer's output.
    """

    embedding: float = 0.0
    between: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        for name in ("embedding", "between", "output"):
            checks.fraction(f"model.dropout.{name}", getattr(self, name))


def dropout(
    x: Float[Tensor, "T B X"], rate: float, noise: Noise | None, site: str
) -> Float[Tensor, "T B X"]:
    """Inverted dropout, a fresh mask per element; the identity without noise (evaluation)."""
    if noise is None or rate == 0.0:
        return x
    return x * noise.keep_mask(site, x.shape, rate, stream_dim=1, like=x)
