"""Stretches of text that come one after the other to rows, no row before its unit is complete."""

import math
from collections.abc import Sequence

from lm.data.tokenizers import Tokenizer
from lm.scoring.columns import Columns, Place, Table
from lm.scoring.tokens import (
    NO_TOKENS,
    Measures,
    Tokens,
    joined_measures,
    joined_tokens,
    unmeasured,
)
from lm.scoring.units import Layout, Level


class Assembler:
    """Makes rows of stretches of text that come one after the other.

    The last unit waits, since the next stretch may go on with it.

    Args:
        columns: those that are wanted, of `COLUMNS[level]`; not for the level of documents.
    """

    def __init__(self, level: Level, columns: Sequence[str], tokenizer: Tokenizer) -> None:
        assert level is not Level.document
        self.level = level
        self._columns = columns
        self._tokenizer = tokenizer
        self._held, self._measures = NO_TOKENS, unmeasured(0)
        self._place = Place()

    def add(self, tokens: Tokens, measures: Measures) -> Table:
        """Rows of the units that end before the last one begins."""
        self._held = joined_tokens([self._held, tokens])
        self._measures = joined_measures([self._measures, measures])
        rows = self._rows(math.nan)
        count = len(rows.units.first) - 1
        if self.level is Level.token:  # what white space belongs to is yet to come
            count = min(count, rows.layout.last_settled)
        if count < 1:
            return {}
        first = int(rows.units.first[count])
        place = int(min(rows.units.start[count], self._held.spans[first, 0]))
        return self._take(rows, count, first, place)

    def finish(self, entropy_after: float) -> Table:
        """Rows of all that waited.

        Args:
            entropy_after: of what comes after the text, in nats.
        """
        rows = self._rows(entropy_after)
        return self._take(rows, len(rows.units.first), len(self._held), len(self._held.text))

    @property
    def ends_a_line(self) -> bool:
        """Whether what waits is complete: it ends with a line."""
        return self._held.text.endswith(b"\n")

    def _rows(self, entropy_after: float) -> Columns:
        layout = Layout(self._held, self._place.previous)
        return Columns(
            layout, layout.units(self.level), self._measures, entropy_after, self._place,
            self._tokenizer, partial=self.level is Level.sentence,
        )  # fmt: skip

    def _take(self, rows: Columns, count: int, first: int, place: int) -> Table:
        """The first rows, and keep what begins at a token and a byte."""
        table = {name: rows.column(name)[:count] for name in self._columns} if count else {}
        done, self._held = self._held.split(first, place)
        self._measures = self._measures.of(slice(first, None))
        self._place.pass_by(done.text, rows.layout)
        return table
