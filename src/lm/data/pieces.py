"""Reading text in bounded memory: pieces that depend on the content alone, and counts of it.

A piece ends at the first safe cut after `TARGET_BYTES`, or by force `LONGEST_BYTES` further on
when there is none. A cut is safe when the tokenizer gives the same tokens for the two parts as for
the whole, so that encoding depends neither on the size of a read nor, but for forced cuts, on the
division at all.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import numpy as np
from tqdm import tqdm

from lm.data.corpus import Document
from lm.errors import DataError

TARGET_BYTES = 1 << 16
LONGEST_BYTES = 1 << 20
READ_BYTES = 1 << 20
LOOKAHEAD_BYTES = 4

# What bytes.split() divides at. Never U+0085, U+2028 or \x1c, at which str.split() would.
WHITESPACE = b" \t\n\r\v\f"
_IS_SPACE = np.isin(np.arange(256), list(WHITESPACE))
_SPACE, _NEWLINE = 0x20, 0x0A


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a tokenizer lets a text be divided, and what it demands of the bytes.

    Attributes:
        safe: matches the empty string at each safe cut; looks ahead `LOOKAHEAD_BYTES` at most.
        forced: whether a text without a safe cut may be cut by force, between two UTF-8
            sequences; if not, it is an error.
        utf8: whether the text must be valid UTF-8.
        after_newline: whether a cut after any newline is safe, whatever comes next.
    """

    safe: re.Pattern[bytes]
    forced: bool = True
    utf8: bool = False
    after_newline: bool = True


class Piece(NamedTuple):
    """Some consecutive bytes of a document; `last` when the document ends with them."""

    text: bytes
    last: bool


def size(documents: Sequence[Document]) -> int:
    """Bytes of all documents together.

    Raises:
        DataError: a file is missing.
    """
    try:
        return sum(
            (d.path.stat().st_size if d.stop is None else d.stop) - d.start for d in documents
        )
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename}: {error.strerror}", "Check the path and its permissions."
        ) from error


def progress(total: int, label: str) -> "tqdm[NoReturn]":
    """A bar in bytes for work that takes more than half a second, on terminals."""
    return tqdm(
        total=total,
        desc=label,
        unit="B",
        unit_scale=True,
        delay=0.5,
        disable=None,
        leave=False,
        dynamic_ncols=True,
    )


def pieces(
    documents: Sequence[Document], cut: Cut, label: str, *, by_line: bool = False
) -> Iterator[Piece]:
    """Divide each document into pieces, under a progress bar on terminals.

    Pieces never span documents; an empty document is one empty piece.

    Args:
        label: what the bar says.
        by_line: end pieces after a newline where there is one near enough, whatever `cut` says.

    Raises:
        DataError: a file cannot be read, is not the UTF-8 that `cut` demands, or has no safe
            cut where none may be forced; with path and byte offset.
    """
    with progress(size(documents), label) as bar:
        for document in documents:
            for piece in _divide(document, cut, by_line):
                yield piece
                bar.update(len(piece.text))


def _divide(document: Document, cut: Cut, by_line: bool) -> Iterator[Piece]:
    buffer = bytearray()
    offset = document.start
    chunks = document.chunks(READ_BYTES)
    exhausted = False
    while True:
        while not exhausted and len(buffer) < TARGET_BYTES + LONGEST_BYTES + LOOKAHEAD_BYTES:
            chunk = next(chunks, b"")
            exhausted = not chunk
            buffer += chunk
        end = _first_cut(buffer, cut, by_line)
        if end is None:
            end = _forced_cut(buffer, cut, document, offset)
        text = bytes(buffer[:end])
        if cut.utf8:
            check_utf8(text, document.path, offset)
        del buffer[:end]
        yield Piece(text, last=not buffer)
        offset += end
        if not buffer:
            return


def _first_cut(buffer: bytearray, cut: Cut, by_line: bool) -> int | None:
    """The end of the piece that starts the buffer, or None when only force would end it."""
    limit = min(len(buffer), TARGET_BYTES + LONGEST_BYTES)
    if len(buffer) <= TARGET_BYTES:
        return len(buffer)
    if by_line and (newline := buffer.find(b"\n", TARGET_BYTES - 1, limit)) >= 0:
        return newline + 1
    match = cut.safe.search(buffer, TARGET_BYTES, limit + LOOKAHEAD_BYTES)
    if match is not None and match.start() <= limit:
        return match.start()
    return len(buffer) if limit == len(buffer) else None


def _forced_cut(buffer: bytearray, cut: Cut, document: Document, offset: int) -> int:
    limit = TARGET_BYTES + LONGEST_BYTES
    if not cut.forced:
        start = offset + limit - len(bytes(buffer[:limit]).rsplit(None, 1)[-1])
        raise DataError(
            f"{document.path}: a word longer than {LONGEST_BYTES} bytes at byte offset {start}",
            "Is this text? If so, use tokenizer=byte, char or bpe.",
        )
    for end in range(limit, limit - 4, -1):
        if buffer[end] & 0xC0 != 0x80:
            return end
    return limit


def check_utf8(text: bytes, name: object, offset: int) -> None:
    """Demand UTF-8 of the bytes of a text from an offset on.

    Raises:
        DataError: it is not; with the text's name and the byte offset.
    """
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: invalid UTF-8 at byte offset {offset + error.start}",
            "Convert the file to UTF-8 or use tokenizer=byte.",
        ) from error


def words_within(text: bytes, end: int) -> int:
    """Words and newlines that lie wholly within the first `end` bytes of a text."""
    goes_on = 0 < end < len(text) and not (
        text[end - 1 : end].isspace() or text[end : end + 1].isspace()
    )
    return len(text[:end].split()) + text.count(b"\n", 0, end) - goes_on


@dataclass(slots=True)
class TextCounts:
    """Counts of the text of a split, fed piece by piece.

    Attributes:
        num_bytes: bytes of the text.
        num_words: whitespace-separated words, plus one for each newline.
        first_token_bytes, first_token_words: how much of that the first token covers; it is
            context and never predicted.
        unknown_count: tokens that stand for something outside the vocabulary.
        rewritten_lines: lines that differ from their words joined by single spaces, or that hold
            the word `reserved`, which decoding would turn into something else.
    """

    num_bytes: int = 0
    num_words: int = 0
    first_token_bytes: int = 0
    first_token_words: int = 0
    unknown_count: int = 0
    rewritten_lines: int = 0
    _previous: int = field(default=_NEWLINE, repr=False)
    _line_counted: bool = field(default=False, repr=False)

    def add(
        self, piece: Piece, *, rewrites: bool, reserved: re.Pattern[bytes] | None = None
    ) -> None:
        """Count one more piece; `rewrites` says whether `rewritten_lines` is wanted."""
        self.num_bytes += len(piece.text)
        if piece.text:
            codes = np.frombuffer(piece.text, np.uint8)
            before = np.empty_like(codes)
            before[0], before[1:] = self._previous, codes[:-1]
            space, space_before = _IS_SPACE[codes], _IS_SPACE[before]
            newline = codes == _NEWLINE
            starts = space_before & ~space
            self.num_words += int(np.count_nonzero(starts) + np.count_nonzero(newline))
            if rewrites:
                # Right are: a space after a word, a newline after a word or a newline.
                wrong = space & space_before & ~(newline & (before == _NEWLINE))
                wrong |= space & ~newline & (codes != _SPACE)
                places = np.flatnonzero(wrong)
                if reserved is not None:
                    found = [match.start() for match in reserved.finditer(piece.text)]
                    places = np.concatenate([places, np.array(found, np.int64)])
                self._count_lines(places, np.flatnonzero(newline))
            self._previous = int(codes[-1])
        if piece.last:
            trailing = self._previous != _NEWLINE and bool(_IS_SPACE[self._previous])
            self.rewritten_lines += rewrites and trailing and not self._line_counted
            self._previous, self._line_counted = _NEWLINE, False

    def _count_lines(self, places: np.ndarray, newlines: np.ndarray) -> None:
        lines = np.unique(np.searchsorted(newlines, places))
        self.rewritten_lines += len(lines) - (self._line_counted and 0 in lines)
        open_line = len(newlines)
        self._line_counted = open_line in lines or (self._line_counted and open_line == 0)
