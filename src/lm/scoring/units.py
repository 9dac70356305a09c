"""Tokens to words and sentences.

A word is what stands between ASCII whitespace, as in the word tokenizer; a sentence is a line; the
line end is a unit of its own. A token belongs whole to the word in which its first byte that is no
whitespace lies: ` word` and `.forward` count for the words `word` and `self.forward(x)`. A token of
whitespace alone belongs to what comes after it, and to the line end if a newline is in it.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lm.data.pieces import WHITESPACE
from lm.scoring.tokens import Tokens

IS_SPACE = np.isin(np.arange(256), list(WHITESPACE))
NEWLINE = 0x0A


class Level(Enum):
    """What a row is about."""

    token = "token"
    word = "word"
    sentence = "sentence"
    document = "document"


@dataclass(frozen=True, slots=True)
class Units:
    """Consecutive units of a stretch of text; each ends where the next begins.

    Attributes:
        first: the first token of each.
        start, end: the bytes of its text, which need not be those of its tokens.
    """

    first: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


class Layout:
    """Where words and lines of a stretch begin and end, and which tokens are theirs.

    Args:
        before: the byte before the stretch.
    """

    def __init__(self, tokens: Tokens, before: int) -> None:
        self.tokens = tokens
        self._codes = np.frombuffer(tokens.text, np.uint8)
        self._space = IS_SPACE[self._codes]
        previous = np.concatenate([IS_SPACE[[before]], self._space])
        self.newlines = np.flatnonzero(self._codes == NEWLINE)
        self.word_starts = np.flatnonzero(previous[:-1] & ~self._space)
        self._place()

    def _place(self) -> None:
        """Find the byte by which each token belongs where it does."""
        start, end = self.tokens.spans.T
        length = len(self.tokens.text)
        # Each token's first byte that is no whitespace, then its first newline.
        letter = _next(np.flatnonzero(~self._space), start, length)
        newline = _next(self.newlines, start, length)
        self.is_text = letter < end
        self.is_newline = ~self.is_text & (newline < end)
        own = np.where(self.is_text, letter, newline)
        settled = np.flatnonzero(self.is_text | self.is_newline)
        # What is neither belongs where the next one does that is; after the last, to the end.
        self.last_settled = int(settled[-1]) if len(settled) else 0
        heir = _next(settled, np.arange(len(own)), -1)
        self.of_word = np.append(self.is_text, False)[heir]
        self.byte = np.append(own, length)[heir]

    @cached_property
    def word_ends(self) -> NDArray[np.int64]:
        """The byte after each word that ends in the stretch, or is there at its end."""
        after = np.append(self._space[1:], True)[: len(self._space)]
        return np.flatnonzero(~self._space & after) + 1

    @cached_property
    def line(self) -> NDArray[np.int64]:
        """Of each token: how many newlines stand before its line in the stretch."""
        return np.searchsorted(self.newlines, self.byte)

    @cached_property
    def word(self) -> NDArray[np.int64]:
        """Of each token: how many words have begun in the stretch up to it."""
        return np.searchsorted(self.word_starts, self.byte, "right")

    def units(self, level: Level) -> Units:
        """The stretch divided."""
        start, end = self.tokens.spans.T
        if level is Level.token or not len(start):
            return Units(np.arange(len(start)), start, end)
        if level is Level.sentence:
            return self._sentences()
        # A word ends with its last token, a line end with its newline.
        changes = (np.diff(self.word) != 0) | (np.diff(self.of_word) != 0) | self.is_newline[:-1]
        first = _starts(changes, len(start))
        last = np.append(first[1:], len(start)) - 1
        words = self.of_word[first]
        number = self._index_of_word(self.word[first[words]])
        begin, stop = start[first], end[last]
        begin[words], stop[words] = number
        return Units(first, begin, stop)

    def _index_of_word(
        self, count: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the last of so many words begins and ends; one may have begun before."""
        starts = np.append(self.word_starts, 0)[count - 1]
        at = np.searchsorted(self.word_ends, starts, "right")
        return starts, np.append(self.word_ends, len(self._codes))[at]

    def _sentences(self) -> Units:
        first = _starts(np.diff(self.line) != 0, len(self.line))
        line = self.line[first]
        begin = np.append(0, self.newlines + 1)[line]
        return Units(first, begin, np.append(self.newlines, len(self._codes))[line])


def _next(places: NDArray[np.int64], at: NDArray[np.int64], nothing: int) -> NDArray[np.int64]:
    """The first of the ascending places that is not before each of `at`."""
    return np.append(places, nothing)[np.searchsorted(places, at)]


def _starts(changes: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """First positions of runs, given which neighbours differ."""
    return np.append(0, np.flatnonzero(changes) + 1)[:count]
