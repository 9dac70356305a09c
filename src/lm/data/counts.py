"""Counting the text of a split piece by piece, in parts that are put together again."""

import re
from dataclasses import dataclass, field

import numpy as np

from lm.data.pieces import WHITESPACE, Piece

_IS_SPACE = np.isin(np.arange(256), list(WHITESPACE))
_SPACE, NEWLINE = 0x20, 0x0A


def words_within(text: bytes, end: int) -> int:
    """Words and newlines that lie wholly within the first `end` bytes of a text."""
    goes_on = 0 < end < len(text) and not (
        text[end - 1 : end].isspace() or text[end : end + 1].isspace()
    )
    return len(text[:end].split()) + text.count(b"\n", 0, end) - goes_on


@dataclass(slots=True)
class TextCounts:
    """Counts of the text of a split, or of a part of it.

    Attributes:
        num_tokens: of the text; counted by whoever encodes it.
        num_bytes: bytes of the text.
        num_words: whitespace-separated words, plus one for each newline.
        first_token_bytes, first_token_words: how much of that the first token covers; it is
            context and never predicted.
        unknown_count: tokens that stand for something outside the vocabulary.
        rewritten_lines: lines that differ from their words joined by single spaces, or that hold
            the word `reserved`, which decoding would turn into something else.
        previous: the byte before what comes next.
        first_counted: whether the line that was open when the part began is counted.
        open_counted: whether the line that is open at its end is.
        closed: whether a line ended in the part.
    """

    num_tokens: int = 0
    num_bytes: int = 0
    num_words: int = 0
    first_token_bytes: int = 0
    first_token_words: int = 0
    unknown_count: int = 0
    rewritten_lines: int = 0
    previous: int = field(default=NEWLINE, repr=False)
    first_counted: bool = field(default=False, repr=False)
    open_counted: bool = field(default=False, repr=False)
    closed: bool = field(default=False, repr=False)

    def add(
        self, piece: Piece, *, rewrites: bool, reserved: re.Pattern[bytes] | None = None
    ) -> None:
        """Count one more piece; `rewrites` says whether `rewritten_lines` is wanted."""
        self.num_bytes += len(piece.text)
        if piece.text:
            codes = np.frombuffer(piece.text, np.uint8)
            before = np.empty_like(codes)
            before[0], before[1:] = self.previous, codes[:-1]
            space, space_before = _IS_SPACE[codes], _IS_SPACE[before]
            newline = codes == NEWLINE
            starts = space_before & ~space
            self.num_words += int(np.count_nonzero(starts) + np.count_nonzero(newline))
            if rewrites:
                # Right are: a space after a word, a newline after a word or a newline.
                wrong = space & space_before & ~(newline & (before == NEWLINE))
                wrong |= space & ~newline & (codes != _SPACE)
                places = np.flatnonzero(wrong)
                if reserved is not None:
                    found = [match.start() for match in reserved.finditer(piece.text)]
                    places = np.concatenate([places, np.array(found, np.int64)])
                self._count_lines(places, np.flatnonzero(newline))
            self.previous = int(codes[-1])
        if piece.last:
            trailing = self.previous != NEWLINE and bool(_IS_SPACE[self.previous])
            if rewrites and trailing:
                self._count_lines(np.zeros(1, np.int64), np.empty(0, np.int64))
            self.previous, self.open_counted, self.closed = NEWLINE, False, True

    def _count_lines(self, places: np.ndarray, newlines: np.ndarray) -> None:
        lines = np.unique(np.searchsorted(newlines, places))
        in_first = 0 in lines
        self.rewritten_lines += len(lines) - (self.open_counted and in_first)
        self.first_counted |= in_first and not self.closed
        open_line = len(newlines)
        self.open_counted = open_line in lines or (self.open_counted and open_line == 0)
        self.closed |= open_line > 0

    def follow(self, part: "TextCounts") -> None:
        """Add what was counted of the part that comes next, begun with this one's `previous`."""
        if self.num_tokens == 0:
            self.first_token_bytes += part.first_token_bytes
            self.first_token_words += part.first_token_words
        self.num_tokens += part.num_tokens
        self.num_bytes += part.num_bytes
        self.num_words += part.num_words
        self.unknown_count += part.unknown_count
        self.rewritten_lines += part.rewritten_lines - (self.open_counted and part.first_counted)
        goes_on = not part.closed and (self.open_counted or part.first_counted)
        self.open_counted = part.open_counted or goes_on
        self.previous = part.previous


@dataclass(frozen=True, slots=True)
class Place:
    """How far a split is encoded: before the first of its batches, or between two of them.

    Attributes:
        batches: that lie before it.
        text: hash of the bytes of these.
        last_end: the position of the last unit's end.
        counts: of these batches.
    """

    batches: int = 0
    text: str = ""
    last_end: int = -1
    counts: TextCounts = field(default_factory=TextCounts)
