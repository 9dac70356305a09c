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
        locked: one mask for all steps of a window (variational dropout, Gal & Ghahramani 2016).
    """

    embedding: float = 0.0
    between: float = 0.0
    output: float = 0.0
    locked: bool = False

    def __post_init__(self) -> None:
        for name in ("embedding", "between", "output"):
            checks.fraction(f"model.dropout.{name}", getattr(self, name))


def dropout(
    x: Float[Tensor, "T B X"], rate: float, noise: Noise | None, site: str, locked: bool = False
) -> Float[Tensor, "T B X"]:
    """Inverted dropout, a fresh mask per element, or per stream and unit if `locked`.

    The identity without noise (evaluation).
    """
    if noise is None or rate == 0.0:
        return x
    shape = (1, *x.shape[1:]) if locked else x.shape
    return x * noise.keep_mask(site, shape, rate, stream_dim=1, like=x)
