"""The course of a run from its `metrics.jsonl`, read as a stranger's."""

from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path

from lm.errors import CheckpointError
from lm.metrics import tags
from lm.metrics.history import rows, value_of
from lm.runtime.untrusted import REMEDY

# More points than a picture has columns of pixels only make it grey.
_POINTS = 400


class Axis(Enum):
    """What the x-axis counts."""

    tokens = "tokens"
    step = "step"
    seconds = "seconds"


class Measure(Enum):
    """What the y-axis shows."""

    loss = "loss"
    perplexity = "perplexity"
    bits_per_byte = "bits_per_byte"


@dataclass(slots=True)
class Curve:
    """Points by x; what was not finite is left out."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """One more point."""
        self.x.append(x)
        self.y.append(y)

    def thinned(self) -> "Curve":
        """Means of neighbours, at most `_POINTS` of them."""
        size = -(-len(self.x) // _POINTS)
        if size <= 1:
            return self
        ends = [*range(0, len(self.x), size), len(self.x)]
        return Curve(*(
            [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)] for values in (self.x, self.y)
        ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Course:
    """What is drawn of a run.

    Attributes:
        floor: what no model of this validation text can be below on average, where that is known.
    """

    train: Curve
    valid: Curve
    floor: float | None


def read_course(path: Path, axis: Axis, measure: Measure) -> Course:
    """A run's training and validation curves.

    Raises:
        CheckpointError: the file is missing or malformed.
    """
    train, valid, floor, seconds = Curve(), Curve(), None, 0.0
    for row in rows(path):
        seconds = value_of(row, tags.SECONDS) or seconds
        x = seconds if axis is Axis.seconds else value_of(row, axis.value)
        if x is None:
            raise CheckpointError(f"{path}: a line has no {axis.value}", REMEDY)
        for split, curve in (("train", train), ("valid", valid)):
            y = value_of(row, f"{split}/{measure.value}")
            if y is not None:
                curve.add(x, y)
        found = value_of(row, _floor_tag(measure))
        floor = floor if found is None else found
    return Course(train.thinned(), valid, floor)


def _floor_tag(measure: Measure) -> str:
    return "valid/floor" if measure is Measure.loss else f"valid/floor_{measure.value}"
