"""The root schema of `lm compare`."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath

from omegaconf import MISSING

from lm import checks
from lm.comparison.curves import Axis, Measure
from lm.comparison.formats import Format
from lm.comparison.plot import SUFFIXES
from lm.errors import ConfigError
from lm.runtime.device import RuntimeConfig


class Group(Enum):
    """What makes several runs one row."""

    seeds = "seeds"


@dataclass(kw_only=True, slots=True)
class CompareConfig:
    """`lm compare`.

    Attributes:
        runs: run directories, folders with runs below them, or patterns.
        sort: a column, with `-` before it from high to low; None is the best validation loss
            first, or the best bits per byte where tokenizers differ.
        group: `seeds` makes one row of the runs that differ in their seed alone: mean ± standard
            deviation.
        intervals: evaluate the best checkpoint of every finished run that has no
            `evaluation.json` yet, and keep it there: the interval of its test perplexity.
        format: of the table; None is what the suffix of `output` says, else text.
        output: a file for the table, instead of standard output.
        plot: a file for a picture of the curves: .png, .svg or .pdf.
        x, y: what the picture's axes show.
        runtime: what `intervals` computes on.
    """

    runs: list[str] = field(default_factory=lambda: ["runs"])
    sort: str | None = None
    group: Group | None = None
    intervals: bool = False
    format: Format | None = None
    output: str | None = None
    plot: str | None = None
    x: Axis = Axis.tokens
    y: Measure = Measure.loss
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        checks.at_least("len(runs)", len(self.runs), 1)
        if self.plot is not None and PurePath(self.plot).suffix not in SUFFIXES:
            raise ConfigError(
                f"plot must end in one of {', '.join(SUFFIXES)}, got {self.plot!r}",
                "Set plot=curves.png.",
            )
