"""Tables as text: TSV for R and pandas, JSON Lines for programs."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum

from lm.scoring.columns import Table

NOT_AVAILABLE = "NA"
# Digits after the point: single tokens are exact to some 1e-6.
_DIGITS = 6
# What would end a line or a field for one reader or another: control characters, the line ends of
# Unicode, and bytes that are no UTF-8, as `surrogateescape` decodes them.
_ESCAPES = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(0x20), ord("\\"), *range(0x7F, 0xA0), 0x2028, 0x2029)
} | {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}

# JSON lets these stand, and readers that divide a text into lines do not.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


class Format(Enum):
    """What is written.

    tsv: a header, then tab-separated values.
    jsonl: an object a line.
    nbest: hypotheses, read as `id score text` and ranked anew, as TSV.
    """

    tsv = "tsv"
    jsonl = "jsonl"
    nbest = "nbest"


class Rows(ABC):
    """Writes rows of the same columns.

    Args:
        write: takes text.
    """

    def __init__(self, columns: Sequence[str], write: Callable[[str], object]) -> None:
        self.columns = list(columns)
        self._write = write

    def write(self, table: Table) -> None:
        """Write the rows of a table, if it has any."""
        if table and table[self.columns[0]]:
            self._write("".join(self.lines(table)))

    @abstractmethod
    def lines(self, table: Table) -> list[str]:
        """The rows of a table that has some."""


class Tsv(Rows):
    r"""A header before the first row; `\t`, `\n`, `\\` and the like for what would divide a text.

    There are no quotes: for pandas `quoting=csv.QUOTE_NONE`, for R `quote=""`.
    """

    _begun = False

    def lines(self, table: Table) -> list[str]:
        columns = [[field(value) for value in table[name]] for name in self.columns]
        rows = ["\t".join(row) + "\n" for row in zip(*columns, strict=True)]
        header = [] if self._begun else ["\t".join(self.columns) + "\n"]
        self._begun = True
        return header + rows


class JsonLines(Rows):
    """Null for what is not available; bytes that are no UTF-8 are replaced."""

    def lines(self, table: Table) -> list[str]:
        ordered = {name: table[name] for name in self.columns}
        rows = (json.dumps(row, ensure_ascii=False) for row in records(ordered))
        return [row.translate(_JSON_ESCAPES) + "\n" for row in rows]


def records(table: Table) -> list[dict[str, object]]:
    """The rows of a table, as JSON and Python have them."""
    columns = [[plain(value) for value in values] for values in table.values()]
    return [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]


def rows_in(format_: Format, columns: Sequence[str], write: Callable[[str], object]) -> Rows:
    """What writes rows in a format."""
    return (JsonLines if format_ is Format.jsonl else Tsv)(columns, write)


def field(value: object) -> str:
    """A value of a table in TSV."""
    if isinstance(value, float):
        return NOT_AVAILABLE if math.isnan(value) else f"{value:.{_DIGITS}f}"
    if isinstance(value, bytes):
        text = value.decode("utf-8", "surrogateescape")
        whole = text.isprintable() and "\\" not in text
        return text if whole else text.translate(_ESCAPES)
    return NOT_AVAILABLE if value is None else str(value)  # a token's name is printable already


def plain(value: object) -> object:
    """A value of a table as JSON and Python have it."""
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
