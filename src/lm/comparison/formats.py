"""The table as text, Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from enum import Enum

from lm.comparison.table import Cell, Ends, Spread, Table, records
from lm.errors import on_one_line

_DIGITS = {"loss": 4, "byte": 4, "floor": 4, "excess": 4, "perplexity": 2, "interval": 2}
"""Digits behind the point by the last word of a column's name; 0 for the other measured ones."""


class Format(Enum):
    """How a table is written."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


SUFFIXES = {
    ".md": Format.markdown, ".csv": Format.csv, ".json": Format.json, ".txt": Format.text,
}  # fmt: skip


def written(table: Table, form: Format) -> str:
    """The table in a format, with a newline at its end."""
    return _WRITERS[form](table)


def _text(table: Table) -> str:
    names, rows = _shown(table)
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    right = [_is_number(table, name) for name in names]

    def line(cells: Sequence[str]) -> str:
        parts = zip(cells, widths, right, strict=True)
        return "  ".join(
            cell.rjust(width) if number else cell.ljust(width) for cell, width, number in parts
        ).rstrip()

    return "".join(f"{line(cells)}\n" for cells in (names, *rows))


def _markdown(table: Table) -> str:
    names, rows = _shown(table)
    rule = ["--:" if _is_number(table, name) else "---" for name in names]
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (names, rule, *body)]
    notes = [f"\n{remark}" for remark in table.remarks]
    return "\n".join(lines + notes) + "\n"


def _csv(table: Table) -> str:
    rows = records(table)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(table: Table) -> str:
    """JSON has neither infinity nor NaN."""
    rows = [
        {
            name: None if isinstance(cell, float) and not math.isfinite(cell) else cell
            for name, cell in row.items()
        }
        for row in records(table)
    ]
    return json.dumps({"runs": rows, "remarks": table.remarks}, indent=1) + "\n"


_WRITERS: dict[Format, Callable[[Table], str]] = {
    Format.text: _text, Format.markdown: _markdown, Format.csv: _csv, Format.json: _json,
}  # fmt: skip


def _shown(table: Table) -> tuple[list[str], list[list[str]]]:
    """For people: names and cells, without the columns that have nothing in them."""
    names = [name for name in table.columns if any(row[name] is not None for row in table.rows)]
    rows = [
        [_show(row[name], name, field=name in table.fields) for name in names] for row in table.rows
    ]
    return names, rows


def _show(cell: Cell, name: str, *, field: bool) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        return f"{_number(cell.mean, name)} ± {_number(cell.deviation, name)}"
    if isinstance(cell, Ends):
        return f"{_number(cell.low, name)} to {_number(cell.high, name)}"
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str):
        return on_one_line(cell)
    return f"{cell:g}" if field else _number(cell, name)


def _number(value: float, name: str) -> str:
    return f"{value:,.{_DIGITS.get(name.rpartition('_')[2], 0)}f}"


def _is_number(table: Table, name: str) -> bool:
    """A column of numbers stands at the right."""
    return not any(isinstance(row[name], str | bool) for row in table.rows)
