"""The table of runs: a row for each, or for each group of runs that differ in their seed alone."""

import difflib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm.comparison.comparability import one_tokenizer, remarks
from lm.comparison.reading import Run
from lm.errors import ConfigError
from lm.metrics.perplexity import exp

# Where a run lies and how it is shown is no part of what it computes.
_NO_DIFFERENCE = frozenset(
    {
        "name", "resume", "runs", "runtime.cache", "trainer.bar", "trainer.keep",
        "trainer.log_every", "trainer.sample_prompt", "trainer.sample_temperature",
        "trainer.sample_tokens", "trainer.save_every", "trainer.save_in_background",
        "trainer.test", "trainer.tokens_axis",
    }
)  # fmt: skip
# A model that is counted takes no notice of them.
_OF_TRAINING = ("optim", "schedule", "trainer")
_PLACE = "run"


@dataclass(frozen=True, slots=True)
class Spread:
    """What several seeds gave.

    Attributes:
        deviation: standard deviation of the sample (n − 1).
    """

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Ends:
    """An interval."""

    low: float
    high: float


Cell = str | bool | int | float | Spread | Ends | None


@dataclass(frozen=True, slots=True)
class Table:
    """What is compared.

    Attributes:
        columns: names, in order; fields of the configuration have their dotted ones.
        fields: those of the columns that are such fields.
        rows: a cell for each column.
        remarks: why some of the numbers are not to be set side by side.
    """

    columns: list[str]
    fields: list[str]
    rows: list[dict[str, Cell]]
    remarks: list[str]


def tabulate(
    runs: Sequence[Run], labels: Sequence[str], *, by_seed: bool = False, sort: str | None = None
) -> Table:
    """The table, the best first.

    Args:
        labels: a short name for each run.
        by_seed: one row for all runs that differ in `seed` alone.
        sort: a column, with `-` before it from high to low; None is the validation loss, or bits
            per byte where a token is not the same everywhere.

    Raises:
        ConfigError: there is no column of that name.
    """
    fields = differing(runs)
    rows = [
        {_PLACE: label, **{name: _value(run, name) for name in fields}, **_numbers(run)}
        for run, label in zip(runs, labels, strict=True)
    ]
    if by_seed:
        fields = [name for name in fields if name != "seed"]
        rows = _grouped(rows, fields)
    columns = list(rows[0])
    if sort is None:
        sort = "valid_loss" if one_tokenizer(runs) else "test_bits_per_byte"
    return Table(columns, fields, _sorted(rows, columns, sort), list(remarks(runs, labels)))


def differing(runs: Sequence[Run]) -> list[str]:
    """The fields in which those runs differ that have them, in the order of a configuration.

    A field that only some have came with a component that they chose, which is a field itself.
    """
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in _acting(run).items():
            values.setdefault(name, set()).add(json.dumps(value, sort_keys=True, default=str))
    return [name for name, seen in values.items() if len(seen) > 1 and name not in _NO_DIFFERENCE]


def _acting(run: Run) -> dict[str, Any]:
    """The fields that make a run what it is."""
    counted = run.fields.get("model") == "ngram"
    return {
        name: value
        for name, value in run.fields.items()
        if not (counted and name.partition(".")[0] in _OF_TRAINING)
    }


def described(run: Run, fields: Sequence[str]) -> str:
    """What sets a run apart, for a legend: `model=lstm, hidden_size=100`."""
    last = [name.rpartition(".")[2] for name in fields]
    short = {n: end if last.count(end) == 1 else n for n, end in zip(fields, last, strict=True)}
    acting = _acting(run)
    values = {name: _value(run, name) for name in fields if name in acting}
    return ", ".join(
        f"{short[name]}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in values.items()
    )


def _value(run: Run, name: str) -> Cell:
    """A field's value as the user would type it; None where the run does not have the field."""
    acting = _acting(run)
    if name not in acting:
        return None
    value = acting[name]
    if isinstance(value, str | bool | int | float):
        return value
    return json.dumps(value, default=str)  # null, lists


def _numbers(run: Run) -> dict[str, Cell]:
    rate = run.tokens / run.seconds if run.tokens and run.seconds else None
    test = run.test
    return {
        "status": run.status,
        "parameters": run.parameters,
        "tokens": run.tokens,
        "steps": run.steps,
        "seconds": run.seconds,
        "tokens_per_second": rate,
        "valid_loss": run.best_loss,
        "valid_perplexity": None if run.best_loss is None else exp(run.best_loss),
        "best_step": run.best_step,
        "test_loss": test.loss,
        "test_perplexity": test.perplexity,
        "test_perplexity_interval": None if test.interval is None else Ends(*test.interval),
        "test_bits_per_byte": test.bits_per_byte,
        "test_floor": test.floor,
        "test_excess": test.excess,
    }


def _grouped(rows: list[dict[str, Cell]], fields: Sequence[str]) -> list[dict[str, Cell]]:
    """One row for each combination of fields, with the mean and spread of what was measured."""
    groups: dict[tuple[Cell, ...], list[dict[str, Cell]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in fields), []).append(row)
    return [_merged(group, fields) for group in groups.values()]


def _merged(group: list[dict[str, Cell]], fields: Sequence[str]) -> dict[str, Cell]:
    merged: dict[str, Cell] = {_PLACE: _together([str(row[_PLACE]) for row in group])}
    merged |= {name: group[0][name] for name in fields}
    merged["n"] = len(group)
    for name in group[0]:
        if name in merged or name == "seed":
            continue
        cells = [row[name] for row in group]
        merged[name] = cells[0] if all(cell == cells[0] for cell in cells) else _spread(cells)
    return merged


def _together(labels: list[str]) -> str:
    """`sweep/0, sweep/1` as `sweep/{0,1}`."""
    folders, names = zip(*(label.rpartition("/")[::2] for label in labels), strict=True)
    if len(labels) == 1 or len(set(folders)) > 1 or not folders[0]:
        return ", ".join(labels)
    return f"{folders[0]}/{{{','.join(names)}}}"


def _spread(cells: Sequence[Cell]) -> Cell:
    """Mean and deviation of numbers; the words that occur; nothing of intervals."""
    numbers = [cell for cell in cells if isinstance(cell, int | float)]
    if len(numbers) == len(cells):
        return Spread(statistics.fmean(numbers), statistics.stdev(numbers))
    words = [cell for cell in cells if isinstance(cell, str)]
    return ", ".join(dict.fromkeys(words)) or None


def _sorted(
    rows: list[dict[str, Cell]], columns: Sequence[str], sort: str
) -> list[dict[str, Cell]]:
    name = sort.removeprefix("-")
    if name not in columns:
        close = difflib.get_close_matches(name, columns, n=1)
        raise ConfigError(
            f"sort={sort}: no column {name!r}{f'; nearest: {close[0]}' if close else ''}",
            f"Columns: {', '.join(columns)}; -{close[0] if close else columns[-1]} is from high"
            " to low.",
        )
    there = [row for row in rows if _known(row[name])]
    there.sort(key=lambda row: _key(row[name]), reverse=sort.startswith("-"))
    return there + [row for row in rows if not _known(row[name])]


def _known(cell: Cell) -> bool:
    return cell is not None and not (isinstance(cell, float) and math.isnan(cell))


def _key(cell: Cell) -> tuple[bool, Any]:
    """Numbers before words, each in their own order."""
    if isinstance(cell, Spread):
        return False, cell.mean
    if isinstance(cell, Ends):
        return False, cell.low
    return isinstance(cell, str), cell


def records(table: Table) -> list[Mapping[str, Cell]]:
    """The rows for machines: mean, deviation and the ends of an interval apart."""
    return [
        {key: cell for name in table.columns for key, cell in _apart(name, row[name])}
        for row in table.rows
    ]


def _apart(name: str, cell: Cell) -> list[tuple[str, Cell]]:
    if isinstance(cell, Spread):
        return [(name, cell.mean), (f"{name}_deviation", cell.deviation)]
    if isinstance(cell, Ends):
        return [(f"{name}_low", cell.low), (f"{name}_high", cell.high)]
    return [(name, cell)]
