"""Loss curves of several runs in one picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from textwrap import fill
from typing import Any

from lm.comparison.curves import Axis, Course, Measure
from lm.errors import ConfigError, on_one_line

SUFFIXES = (".png", ".svg", ".pdf")

_X = {Axis.tokens: "training tokens", Axis.step: "steps", Axis.seconds: "seconds"}
_Y = {
    Measure.loss: "nats per token",
    Measure.perplexity: "perplexity",
    Measure.bits_per_byte: "bits per byte",
}
# Training losses of the first steps are those of a uniform model, far above all that follows.
_SETTLED = 0.05
# With more lines a legend is larger than the picture.
_NAMED = 30
_WIDTH = 100
# That stand side by side in a legend, the samples of lines counted as 12.
_CHARACTERS = 124


@dataclass(frozen=True, slots=True)
class Line:
    """A run in the picture.

    Attributes:
        name: what the legend calls it; runs of one name have one colour.
    """

    name: str
    course: Course


def require_matplotlib() -> None:
    """Find out before any work whether pictures can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "plot= needs matplotlib, which is not installed", "pip install matplotlib"
        ) from error


def draw(lines: Sequence[Line], axis: Axis, measure: Measure, path: PurePath) -> bytes:
    """The picture as a file of the type that the path's suffix names.

    Validation is a line with marks, training a thin one of the same colour behind it, and what no
    model can be below a dashed one.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(line.name for line in lines))
    # A dollar sign would begin a formula.
    entries = [fill(on_one_line(name).replace("$", r"\$"), _WIDTH) for name in names[:_NAMED]]
    columns = max(1, min(len(entries), 5, _CHARACTERS // (max(map(len, entries), default=0) + 12)))
    rows = sum(1 + entry.count("\n") for entry in entries) / columns
    figure = Figure(figsize=(9, 5 + 0.2 * rows), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(names, _colours(len(names)), strict=True))
    for line in lines:
        train, valid, colour = line.course.train, line.course.valid, colours[line.name]
        axes.plot(train.x, train.y, color=colour, linewidth=0.8, alpha=0.35, zorder=1)
        style = "-o" if len(valid.x) > 1 else "D"
        axes.plot(valid.x, valid.y, style, color=colour, linewidth=1.8, markersize=3.5, zorder=2)
    for name, entry in zip(names, entries, strict=False):
        axes.plot([], [], "-o", color=colours[name], linewidth=1.8, markersize=3.5, label=entry)
    for floor in sorted({line.course.floor for line in lines if line.course.floor is not None}):
        axes.axhline(floor, color="0.3", linestyle="--", linewidth=1, label=f"floor {floor:.4f}")
    _frame(axes, lines, axis, measure)
    more = f"the first {_NAMED} of {len(names)}" if len(names) > _NAMED else None
    figure.legend(loc="outside lower left", ncols=columns, frameon=False, fontsize=9, title=more)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    return content.getvalue()


def _frame(axes: Any, lines: Sequence[Line], axis: Axis, measure: Measure) -> None:
    """What the axes say, and where they end."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(_X[axis])
    axes.set_ylabel(_Y[measure])
    axes.set_title("validation (marks) and training (thin)", fontsize="medium")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    highest = _highest(lines)
    if highest is not None:
        axes.set_ylim(top=highest)


def _highest(lines: Sequence[Line]) -> float | None:
    """Where the picture ends: what is above is but the fall from the first steps."""
    seen = [y for line in lines for y in line.course.valid.y]
    for line in lines:
        curve = line.course.train
        settled = _SETTLED * max(curve.x, default=0.0)
        seen += [y for x, y in zip(curve.x, curve.y, strict=True) if x >= settled]
    floors = [line.course.floor for line in lines if line.course.floor is not None]
    if not seen:
        return None
    low, high = min([*seen, *floors]), max(seen)
    return high + 0.05 * (high - low) if high > low else None


def _colours(number: int) -> list[Any]:
    """Ten that are told apart easily, or as many shades as are needed."""
    import matplotlib

    palette = matplotlib.colormaps["tab10" if number <= 10 else "turbo"]
    return [palette(i if number <= 10 else i / (number - 1)) for i in range(number)]
