"""What a sweep found: a table for people, and the same as CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lm.errors import on_one_line
from lm.runtime.files import storage_errors, write_atomically
from lm.sweeping.space import Parameter, shown
from lm.sweeping.study import Record, Study

RESULTS = "results.json"
TABLE = "trials.csv"
# A share of so few trials would be a guess.
_TRIALS_FOR_IMPORTANCE = 8
# With more trials the table is the CSV file's.
_ROWS = 20


@dataclass(frozen=True, slots=True)
class Results:
    """What is known of a sweep.

    Attributes:
        metric: what was minimised, such as `valid/loss`.
        records: all trials, by number.
        importance: parameter → share, largest first; empty with few trials.
    """

    metric: str
    space: Mapping[str, Parameter]
    records: Sequence[Record]
    importance: Mapping[str, float]

    @classmethod
    def of(cls, study: Study, metric: str, space: Mapping[str, Parameter]) -> "Results":
        """The results so far."""
        records = study.records()
        complete = sum(record.state == "complete" for record in records)
        told = complete >= _TRIALS_FOR_IMPORTANCE
        return cls(metric, space, records, study.importance() if told else {})

    @property
    def best(self) -> Record | None:
        """The complete trial with the lowest value, the earliest of those; None without any."""
        complete = [record for record in self.records if record.value is not None]
        return min(complete, key=lambda record: (record.value, record.number), default=None)

    @property
    def default(self) -> Record | None:
        """The trial in which nothing was changed."""
        return next((record for record in self.records if record.default), None)

    def write(self, folder: Path) -> None:
        """Leave `results.json` and `trials.csv` in the sweep's folder."""
        with storage_errors(f"write {folder / RESULTS}"):
            write_atomically(folder / RESULTS, self.as_json().encode())
            write_atomically(folder / TABLE, self.as_csv().encode())

    def as_json(self) -> str:
        """Everything; JSON has no infinity, so what was not finite is null."""
        trials = [asdict(record) for record in self.records]
        for trial in trials:
            trial["curve"] = [value if math.isfinite(value) else None for value in trial["curve"]]
        content = {
            "metric": self.metric,
            "best": None if self.best is None else self.best.number,
            "default": None if self.default is None else self.default.number,
            "importance": dict(self.importance),
            "space": {name: asdict(parameter) for name, parameter in self.space.items()},
            "trials": trials,
        }
        return json.dumps(content, indent=1) + "\n"

    def as_csv(self) -> str:
        """A line a trial."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "state", self.metric, "validations", "seconds", *self.space,
                         "cause"])  # fmt: skip
        for record in self.records:
            writer.writerow([
                record.number, record.state, record.value, len(record.curve),
                record.facts.get("seconds"), *(record.params.get(name) for name in self.space),
                record.facts.get("cause"),
            ])  # fmt: skip
        return text.getvalue()

    def table(self) -> str:
        """For people: the best trials first, then those without a result."""
        ordered = sorted(self.records, key=lambda r: (_rank(r), r.number))
        rows = [["trial", self.metric, "", *self.space]]
        rows += [self._row(record) for record in ordered[:_ROWS]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if len(ordered) > _ROWS:
            lines.append(f"… and {len(ordered) - _ROWS} more in {TABLE}")
        return "\n".join(lines) + "\n"

    def _row(self, record: Record) -> list[str]:
        number = "-" if record.value is None else f"{record.value:.4f}"
        remarks = ["default"] if record.default else []
        if record.state != "complete":
            remarks.append(record.state)
        if "same_as" in record.facts:
            remarks.append(f"as {record.facts['same_as']}")
        # A value may be null, which is not none.
        values = [shown(record.params[n]) if n in record.params else "-" for n in self.space]
        return [str(record.number), number, " ".join(remarks), *map(on_one_line, values)]

    def verdict(self) -> str:
        """How the best trial stands beside the default, and what made the difference."""
        best, default, lines = self.best, self.default, []
        if best is not None and best.value is not None:
            lines.append(f"best: trial {best.number}, {self.metric} {best.value:.4f}")
            if default is not None and default.value is not None and default is not best:
                gain = _gain(self.metric, best.value, default.value)
                lines[0] += f"; the default {default.value:.4f}: {gain}"
        if self.importance:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.importance.items())
            lines.append(f"importance (PED-ANOVA): {shares}")
        return "".join(f"{line}\n" for line in lines)


def _rank(record: Record) -> tuple[int, float]:
    if record.value is not None:
        return 0, record.value
    # Pruned trials by where they stood; the others have nothing to show.
    return (1, record.curve[-1]) if record.curve else (2, 0.0)


def _gain(metric: str, best: float, default: float) -> str:
    """How much better, in what people compare: perplexities rather than losses."""
    if metric.endswith("loss"):
        return f"perplexity {math.expm1(best - default):+.1%}"
    return f"{best / default - 1:+.1%}"
