"""Reading text in bounded memory, in pieces that depend on the content alone.

A piece ends at the first safe cut after `TARGET_BYTES`, or by force `LONGEST_BYTES` further on
when there is none. A cut is safe when the tokenizer gives the same tokens for the two parts as for
the whole, so that encoding depends neither on the size of a read nor, but for forced cuts, on the
division at all.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from lm.data.corpus import Document
from lm.data.progress import Progress
from lm.data.stored import Text
from lm.data.survey import size
from lm.errors import DataError

TARGET_BYTES = 1 << 16
LONGEST_BYTES = 1 << 20
READ_BYTES = 1 << 20
LOOKAHEAD_BYTES = 4

# What bytes.split() divides at. Never U+0085, U+2028 or \x1c, at which str.split() would.
WHITESPACE = b" \t\n\r\v\f"


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


def pieces(
    documents: Sequence[Document], cut: Cut, label: str | None, *, by_line: bool = False
) -> Iterator[Piece]:
    """Divide each document into pieces, under a progress bar on terminals.

    Pieces never span documents; an empty document is one empty piece.

    Args:
        label: what the bar says; None is no bar.
        by_line: end pieces after a newline where there is one near enough, whatever `cut` says.

    Raises:
        DataError: a file cannot be read, is not the UTF-8 that `cut` demands, or has no safe
            cut where none may be forced; with path and byte offset.
    """
    with nullcontext() if label is None else Progress(size(documents), label) as progress:
        for document in documents:
            for text in document.texts(READ_BYTES):
                for piece in _divide(text, cut, by_line):
                    yield piece
                    if progress is not None:
                        progress.update(len(piece.text))


def _divide(text: Text, cut: Cut, by_line: bool) -> Iterator[Piece]:
    buffer = bytearray()
    offset = text.offset
    exhausted = False
    while True:
        while not exhausted and len(buffer) < TARGET_BYTES + LONGEST_BYTES + LOOKAHEAD_BYTES:
            chunk = next(text.chunks, b"")
            exhausted = not chunk
            buffer += chunk
        end = _first_cut(buffer, cut, by_line)
        if end is None:
            end = _forced_cut(buffer, cut, text.name, offset)
        part = bytes(buffer[:end])
        if cut.utf8:
            check_utf8(part, text.name, offset)
        del buffer[:end]
        yield Piece(part, last=not buffer)
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


def _forced_cut(buffer: bytearray, cut: Cut, name: str, offset: int) -> int:
    limit = TARGET_BYTES + LONGEST_BYTES
    if not cut.forced:
        start = offset + limit - len(bytes(buffer[:limit]).rsplit(None, 1)[-1])
        raise DataError(
            f"{name}: a word longer than {LONGEST_BYTES} bytes at byte offset {start}",
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
