"""The text to score in pieces that may be encoded one by one: of a file, or as it comes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lm.data.corpus import Document
from lm.data.pieces import Cut, check_utf8, pieces

STANDARD_INPUT = "-"


class Part(NamedTuple):
    """Some consecutive bytes of a text.

    Attributes:
        awaited: someone waits for what can be said of it.
    """

    text: bytes
    awaited: bool = False


def name_of(place: str) -> str:
    """What messages call it."""
    return "standard input" if place == STANDARD_INPUT else place


def stream_of(place: str, cut: Cut) -> Iterator[Part]:
    """The text in parts that may be encoded one by one.

    Args:
        place: a file, or `-` for standard input.

    Raises:
        DataError: it cannot be read, or is not what `cut` demands; with byte offset.
    """
    if place != STANDARD_INPUT:
        yield from (Part(piece.text) for piece in _of_file(place, cut, by_line=False))
        return
    rest = b""
    for line in _arriving(cut):
        text = rest + line
        end = len(text) if cut.after_newline and text.endswith(b"\n") else _last_cut(text, cut)
        rest = text[end:]
        if end:
            yield Part(text[:end], awaited=True)
    yield Part(rest)


def lines_of(place: str, cut: Cut) -> Iterator[list[Part]]:
    """Each line with its end, in parts that may be encoded one by one.

    Only a line of more than a megabyte has more than one.

    Args:
        place: a file, or `-` for standard input.

    Raises:
        DataError: it cannot be read, or is not what `cut` demands; with byte offset.
    """
    if place == STANDARD_INPUT:
        yield from ([Part(line, awaited=True)] for line in _arriving(cut))
        return
    begun: list[Part] = []
    for piece in _of_file(place, cut, by_line=True):
        *lines, rest = piece.text.split(b"\n")
        for line in lines:
            yield [*begun, Part(line + b"\n")]
            begun = []
        if rest:
            begun.append(Part(rest))
    if begun:
        yield begun


def _of_file(place: str, cut: Cut, *, by_line: bool) -> Iterator[Part]:
    document = Document(Path(place).expanduser())
    yield from (Part(piece.text) for piece in pieces([document], cut, "score", by_line=by_line))


def _arriving(cut: Cut) -> Iterator[bytes]:
    """Lines of standard input as soon as they are there."""
    offset = 0
    while line := sys.stdin.buffer.readline():
        if cut.utf8:
            check_utf8(line, name_of(STANDARD_INPUT), offset)
        offset += len(line)
        yield line


def _last_cut(text: bytes, cut: Cut) -> int:
    """The end of what may be encoded before more is known; 0 where there is none."""
    found = [match.start() for match in cut.safe.finditer(text)]
    return found[-1] if found else 0
