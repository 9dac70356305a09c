"""Dropout with masks of our own, so that a run can resume exactly and be split over processes."""

from dataclasses import dataclass, fields

from jaxtyping import Float, Int
from torch import Tensor

from lm import checks
from lm.models.base import Cell, LayerState
from lm.models.weights import KEEP_H, Weights
from lm.runtime.randomness import Noise


@dataclass(kw_only=True, slots=True)
class DropoutConfig:
    """Dropout rates by place.

    On the connections between layers as in Zaremba et al. 2014, on the recurrent ones with masks
    that stay the same for all steps of a window.

    Attributes:
        embedding: on the embedded input.
        between: on the output of every layer but the last.
        output: on the last layer's output.
        locked: for these three, one mask for all steps of a window (variational dropout, Gal &
            Ghahramani 2016).
        words: whole words of the embedding, the same ones wherever they occur in a window (Gal &
            Ghahramani 2016, section 4.2; the output layer keeps them, also when tied).
        weights: elements of the recurrent matrices, one mask per window (DropConnect: Wan et al.
            2013; Merity et al. 2018).
        state: units of h_{t−1} where it enters the recurrent product, one mask per stream and
            window (Gal & Ghahramani 2016, equation 7).
        latent: what enters the softmaxes of a mixture, one mask per stream and window (Yang et al.
            2018).
    """

    embedding: float = 0.0
    between: float = 0.0
    output: float = 0.0
    locked: bool = False
    words: float = 0.0
    weights: float = 0.0
    state: float = 0.0
    latent: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "locked":
                checks.fraction(f"model.dropout.{field.name}", getattr(self, field.name))


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


def drop_words(
    x: Float[Tensor, "T B E"],
    tokens: Int[Tensor, "T B"],
    rate: float,
    noise: Noise | None,
    vocab_size: int,
) -> Float[Tensor, "T B E"]:
    """Embedded tokens without the words that are dropped in this window, the others scaled up."""
    if noise is None or rate == 0.0:
        return x
    keep = noise.shared_mask("dropout.words", (vocab_size, 1), rate, like=x)
    return x * keep[tokens]


def drop_recurrent(
    cell: Cell, k: int, state: LayerState, rates: DropoutConfig, noise: Noise | None
) -> Weights:
    """Layer k's weights for a window: some elements of recurrent matrices dropped, and the mask
    of the state.
    """
    weights = cell.weights()
    result = dict(weights)
    if noise is None:
        return result
    if rates.weights:
        for name in cell.recurrent_matrices:
            site, matrix = f"dropout.weights.{k}.{name}", weights[name]
            keep = noise.shared_mask(site, matrix.shape, rates.weights, like=matrix)
            result[name] = matrix * keep
    if rates.state:
        h = state["h"]
        site = f"dropout.state.{k}"
        result[KEEP_H] = noise.keep_mask(site, h.shape, rates.state, stream_dim=0, like=h)
    return result
