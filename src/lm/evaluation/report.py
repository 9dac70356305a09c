"""The table of an evaluation, for people and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lm.evaluation.bootstrap import FEWEST, Interval, Paired
from lm.evaluation.protocol import Row, Table, listed
from lm.metrics.perplexity import exp


def describe(table: Table) -> str:
    """One line where the model was evaluated as it is and nothing else, else a table."""
    if len(table.rows) > 1:
        return _lines(table)
    (row,) = table.rows
    found = _between(row.interval)
    described = f"{table.split}  {row.score.describe()}  {_percent(table.level)} interval "
    if not found:
        return f"{described}n/a: {_too_few(table)}"
    error = row.excess_error
    certain = "" if error is None else f", excess's standard error {error:.4f}"
    return f"{described}{found}{certain} ({table.blocks.what})"


def _lines(table: Table) -> str:
    score = table.rows[0].score
    certain = (
        f"intervals and p-values by resampling {table.blocks.what}"
        if table.blocks.enough
        else f"no intervals: {_too_few(table)}"
    )
    head = (
        f"{table.split}: {score.num_tokens:,} tokens, {score.num_bytes:,} bytes,"
        f" {score.num_words:,} words; {certain}"
    )
    interval = f"{_percent(table.level)} interval"
    titles = ["method", "perplexity", interval, "bits/byte", "excess", "to static", ""]
    columns = [titles, *(_cells(row) for row in table.rows)]
    if score.floor is None:
        columns = [cells[:4] + cells[5:] for cells in columns]
    else:
        head += f"; floor {score.floor:.4f} nats per token (perplexity {exp(score.floor):.2f})"
    tail = [] if score.lossy is None else [f"bits/byte n/a: {score.lossy}"]
    return "\n".join([head, *_aligned(columns), *tail])


def _cells(row: Row) -> list[str]:
    bits = row.score.bits_per_byte
    change = row.to_static
    tuned = f"  (on {row.tuned_on})" if row.tuned_on else ""
    return [
        row.method,
        f"{row.score.perplexity:.2f}",
        _between(row.interval) or "n/a",
        "n/a" if bits is None else f"{bits:.4f}",
        _excess(row),
        "" if change is None else f"{change.difference:+.4f}{_probability(change, ' ')}",
        f"{listed(row.values)}{tuned}",
    ]


def _excess(row: Row) -> str:
    if row.score.excess is None:
        return ""
    error = "" if row.excess_error is None else f" ± {row.excess_error:.4f}"
    return f"{row.score.excess:.4f}{error}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def compare(table: Table, ours: str, theirs: str) -> list[str]:
    """A line for each method that both models have: which one is better, and how sure that is."""
    return [_comparison(table, row, row.to_rival, ours, theirs) for row in table.rows
            if row.to_rival is not None]  # fmt: skip


def _comparison(table: Table, row: Row, found: Paired, ours: str, theirs: str) -> str:
    start = f"{table.split}  {row.method}: {found.difference:+.4f} nats per token to {theirs}"
    if found.interval is None or found.p_value is None:
        return f"{start}  (no test: {_too_few(table)})"
    better = ours if found.difference < 0 else theirs
    verdict = f"{better} is better" if found.p_value <= 1 - table.level else "no clear difference"
    return (
        f"{start}  ({_percent(table.level)} {found.interval.low:+.4f} to {found.interval.high:+.4f}"
        f"{_probability(found, ', ')}): {verdict}"
    )


def _between(found: Interval | None) -> str:
    return "" if found is None else "{:.2f} to {:.2f}".format(*found.perplexity)


def _probability(found: Paired, before: str) -> str:
    return "" if found.p_value is None else f"{before}p {found.p_value:.2g}"


def _percent(level: float) -> str:
    return f"{100 * level:g} %"


def _too_few(table: Table) -> str:
    return f"{table.blocks.what} are fewer than {FEWEST}"


def to_json(table: Table) -> dict[str, Any]:
    """The first line's numbers, and those of every line under `methods`."""
    return {
        **_row_to_json(table.rows[0]),
        "resampled": table.blocks.what,
        "level": table.level,
        "methods": {row.method: _row_to_json(row) for row in table.rows},
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    score = row.score
    found = {
        "loss": score.loss,
        "perplexity": score.perplexity,
        "bits_per_byte": score.bits_per_byte,
        "word_perplexity": score.word_perplexity,
        **score.to_json(),
        "floor": score.floor,
        "floor_perplexity": None if score.floor is None else exp(score.floor),
        "excess": score.excess,
        "excess_error": row.excess_error,
        "recall_accuracy": score.recall_accuracy,
        "interval": None if row.interval is None else list(row.interval.perplexity),
        "values": row.values,
        "tuned_on": row.tuned_on,
        "to_static": None if row.to_static is None else asdict(row.to_static),
        "to_rival": None if row.to_rival is None else asdict(row.to_rival),
    }
    finite: dict[str, Any] = _finite(found)
    return finite


def _finite(value: Any) -> Any:
    """JSON has neither infinity nor NaN."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
