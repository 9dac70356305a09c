"""Units as rows: columns of numbers in the order of the text.

With p the model's distribution before a unit, H its entropy and H′ that of the distribution after
it, both over the next token:

    surprisal           −log₂ p(token), summed over the tokens of the unit (chain rule)
    entropy             H = −Σ_w p(w) log₂ p(w), before the first token of the unit
    entropy_reduction   max(0, H − H′) (Hale 2006, Uncertainty about the rest of the sentence, with
                        the next token in place of the rest of the sentence)
    rank                1 + number of tokens more probable than the unit's, if it has only one
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lm.data.tokenizers import Tokenizer
from lm.scoring.tokens import Measures
from lm.scoring.units import NEWLINE, Layout, Level, Units

# Column → its values, in the order of rows; bytes are text, NaN and None not available.
Table = dict[str, list[object]]

_PLACES = ("byte_start", "byte_end")
_WORD = (
    "sentence", "word", "text", "start", "end", "tokens", "surprisal", "entropy",
    "entropy_reduction", "rank", "unknown",
)  # fmt: skip
DEFAULT_COLUMNS: dict[Level, tuple[str, ...]] = {
    Level.token: tuple("token" if name == "tokens" else name for name in _WORD),
    Level.word: _WORD,
    Level.sentence: (
        "sentence", "text", "start", "end", "tokens", "words", "unknown", "surprisal", "perplexity",
    ),
    Level.document: ("tokens", "words", "unknown", "surprisal", "perplexity"),
}  # fmt: skip
COLUMNS = {
    level: names if level is Level.document else (*names, *_PLACES)
    for level, names in DEFAULT_COLUMNS.items()
}
"""All columns that a level has; the places in bytes have to be asked for."""

DETAILS = frozenset({"entropy", "entropy_reduction", "rank"})
"""Columns that need more than the probability of what came."""


class Place:
    """Where in the whole text a stretch begins."""

    def __init__(self) -> None:
        self.previous = NEWLINE
        self.num_bytes = self.num_characters = self.num_lines = self.words_in_line = 0

    def pass_by(self, text: bytes, layout: Layout) -> None:
        """Go on behind a text, the first that the layout is of."""
        if not text:
            return
        lines = text.count(b"\n")
        line_start = text.rfind(b"\n") + 1
        begun = layout.word_starts[layout.word_starts < len(text)]
        words = int(np.count_nonzero(begun >= line_start))
        self.words_in_line = words if lines else self.words_in_line + words
        self.num_lines += lines
        self.num_bytes += len(text)
        self.num_characters += int(np.count_nonzero(_begins_character(text)))
        self.previous = text[-1]


class Columns:
    """Columns of all units of a stretch.

    Args:
        partial: sums leave out the tokens that nothing predicts; else they are NaN.
    """

    def __init__(
        self,
        layout: Layout,
        units: Units,
        measures: Measures,
        entropy_after: float,
        place: Place,
        tokenizer: Tokenizer,
        *,
        partial: bool,
    ) -> None:
        self.layout, self.units, self._measures, self._partial = layout, units, measures, partial
        self._after, self._place, self._tokenizer = entropy_after, place, tokenizer
        self._tokens = layout.tokens

    def column(self, name: str) -> list[object]:
        """The values of a column."""
        found: Callable[[], NDArray[np.generic] | list[object]] = getattr(self, name)
        values = found()
        return values.tolist() if isinstance(values, np.ndarray) else values

    @cached_property
    def _last(self) -> NDArray[np.int64]:
        return np.append(self.units.first[1:], len(self._tokens)) - 1

    def sentence(self) -> NDArray[np.int64]:
        """Number of the line, from 1 on."""
        return self.layout.line[self.units.first] + self._place.num_lines + 1

    def word(self) -> list[object]:
        """Number of the word in its line, from 1 on; None for what is no word."""
        first, starts = self.units.first, self.layout.word_starts
        line = self.layout.line[first]
        # Words that had begun in the stretch before the line did.
        earlier = np.append(0, np.searchsorted(starts, self.layout.newlines))[line]
        number = self.layout.word[first] - earlier + np.where(line, 0, self._place.words_in_line)
        return _where(self.layout.of_word[first], number)

    def token(self) -> list[object]:
        """Each unit's first token, for human eyes."""
        ids = self._tokens.ids[self.units.first].tolist()
        shown = {token: self._tokenizer.token(token) for token in set(ids)}
        return [shown[token] for token in ids]

    def text(self) -> list[object]:
        """What stands in the text."""
        text, places = self._tokens.text, (self.units.start.tolist(), self.units.end.tolist())
        return [text[start:end] for start, end in zip(*places, strict=True)]

    def byte_start(self) -> NDArray[np.int64]:
        """Offset of the first byte."""
        return self.units.start + self._place.num_bytes

    def byte_end(self) -> NDArray[np.int64]:
        """Offset of the byte after the last."""
        return self.units.end + self._place.num_bytes

    @cached_property
    def _characters(self) -> NDArray[np.int64]:
        """How many characters have begun before each byte."""
        begun = np.cumsum(_begins_character(self._tokens.text))
        return np.append(0, begun) + self._place.num_characters

    def start(self) -> NDArray[np.int64]:
        """Offset of the character that the first byte is of."""
        inside = ~np.append(_begins_character(self._tokens.text), True)[self.units.start]
        place: NDArray[np.int64] = self._characters[self.units.start] - inside
        return place

    def end(self) -> NDArray[np.int64]:
        """Offset of the character after that of the last byte."""
        return self._characters[self.units.end]

    def tokens(self) -> NDArray[np.int64]:
        """How many tokens, in partial sums those that are predicted."""
        if self._partial:
            return self._count(~np.isnan(self._measures.nats))
        return self._last - self.units.first + 1

    def words(self) -> NDArray[np.int64]:
        """How many words begin in the text of the unit."""
        places = (self.units.start, self.units.end)
        before, after = (np.searchsorted(self.layout.word_starts, place) for place in places)
        return after - before

    def unknown(self) -> NDArray[np.int64]:
        """How many tokens are unknown."""
        return self._count(self._tokens.unknown)

    def _count(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many tokens of each unit."""
        return np.add.reduceat(which, self.units.first, dtype=np.int64)

    def surprisal(self) -> NDArray[np.float64]:
        """In bits."""
        return self._nats / math.log(2)

    @cached_property
    def _nats(self) -> NDArray[np.float64]:
        nats = self._measures.nats
        return np.add.reduceat(np.nan_to_num(nats) if self._partial else nats, self.units.first)

    def perplexity(self) -> NDArray[np.float64]:
        """Per token."""
        with np.errstate(over="ignore", invalid="ignore"):  # 0 / 0 where nothing is predicted
            return np.exp(self._nats / self.tokens())

    def entropy(self) -> NDArray[np.float64]:
        """In bits."""
        return self._entropy / math.log(2)

    @cached_property
    def _entropy(self) -> NDArray[np.float64]:
        return self._measures.entropy[self.units.first]

    def entropy_reduction(self) -> NDArray[np.float64]:
        """In bits."""
        after = self._measures.after[self._last]
        after = np.where(np.isnan(after), np.append(self._entropy[1:], self._after), after)
        return np.maximum(0, self._entropy - after) / math.log(2)

    def rank(self) -> list[object]:
        """Of units that are one token, where there was a prediction."""
        rank = self._measures.rank[self.units.first]
        return _where((self.tokens() == 1) & ~np.isnan(rank), np.nan_to_num(rank).astype(np.int64))


def _where(known: NDArray[np.bool_], numbers: NDArray[np.int64]) -> list[object]:
    pairs = zip(known.tolist(), numbers.tolist(), strict=True)
    return [number if is_known else None for is_known, number in pairs]


def _begins_character(text: bytes) -> NDArray[np.bool_]:
    """Which bytes are the first of a character, in UTF-8."""
    begins: NDArray[np.bool_] = (np.frombuffer(text, np.uint8) & 0xC0) != 0x80
    return begins
