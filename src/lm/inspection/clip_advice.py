"""The clip advisor: where to set the threshold of gradient clipping, from norms that were seen.

Pascanu, Mikolov & Bengio 2013, section 3.2: look at the average norm over a sufficiently large
number of updates; thresholds from half to ten times that average train well, and the choice is not
delicate. What a threshold does depends on where it lies in the norms' distribution: above nearly
all of them it guards against rare explosions; below most of them it makes every step as long.
"""

from dataclasses import asdict, dataclass

import numpy as np

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
# From here on most steps are clipped, and the threshold acts as part of the learning rate.
_MOSTLY = 0.5
_HEAVY_TAIL = 4.0


@dataclass(frozen=True, slots=True)
class ClipAdvice:
    """A threshold and why.

    Attributes:
        norms: pre-clip norms of the steps just rehearsed.
        quantiles: of them, at 50, 90, 99 and 100 %.
        threshold: of the run, `trainer.clip.norm`; None is no clipping by norm.
        history: of each log interval of the run so far its step, mean and largest norm.
        suggested: for `trainer.clip.norm`.
        reasons: sentences.
    """

    norms: list[float]
    quantiles: list[float]
    threshold: float | None
    history: list[tuple[int, float, float]]
    suggested: float
    reasons: list[str]

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def advise(
    norms: list[float], threshold: float | None, history: list[tuple[int, float, float]]
) -> ClipAdvice:
    """Suggest the 90 % quantile: most steps go as they are, and none goes much further.

    Args:
        norms: finite, at least one.
    """
    quantiles = [float(q) for q in np.quantile(norms, _QUANTILES)]
    median, ninety, ninety_nine, largest = quantiles
    suggested = float(f"{ninety:.2g}")
    reasons = [
        f"half of the gradients' norms are below {median:.3g}, 90 % below {ninety:.3g}, 99 % below"
        f" {ninety_nine:.3g}; at {suggested:g} one step in ten is shortened"
    ]
    seen = max([largest, *(top for _, _, top in history)])
    if seen > _HEAVY_TAIL * median:
        reasons.append(
            f"the largest norm seen in training is {seen:.3g}, {seen / median:.0f} times the"
            " median: without clipping such a step would undo many others"
        )
    else:
        reasons.append(
            f"no norm was larger than {seen:.3g}, {seen / median:.1f} times the median: nothing"
            " explodes here, clipping is a precaution"
        )
    if history:
        low, middle, high = np.quantile([mean for _, mean, _ in history], [0.1, 0.5, 0.9])
        reasons.append(
            f"over the whole of training the mean norm of a log interval was {middle:.3g} in the"
            f" middle, {low:.3g} to {high:.3g} in eight of ten"
        )
    reasons += _about(threshold, norms, suggested)
    return ClipAdvice(norms, quantiles, threshold, history, suggested, reasons)


def _about(threshold: float | None, norms: list[float], suggested: float) -> list[str]:
    """What the run's own threshold does."""
    if threshold is None:
        return ["the run does not clip by norm"]
    clipped = float(np.mean([norm > threshold for norm in norms]))
    said = [f"the run's threshold {threshold:g} shortens {clipped:.0%} of these steps"]
    if clipped > _MOSTLY:
        said.append(
            "it acts as part of the learning rate: most steps have the same length, learning rate"
            f" times {threshold:g}. With a threshold of {suggested:g} a learning rate of"
            f" {threshold / suggested:.2g} times today's makes the longest steps as long"
        )
    return said
