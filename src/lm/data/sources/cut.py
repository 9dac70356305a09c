"""Cutting text files into contiguous splits by bytes, without tearing lines or characters."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lm import checks
from lm.data.corpus import Document
from lm.data.sources.local import reading, size_of
from lm.errors import ConfigError, DataError

# A cut moves to the next line start unless that lies farther away than this.
MAX_REACH = 1 << 16


def check_fractions(valid: float, test: float) -> None:
    """Shares of the text for the held-out splits: above zero, and not all of it."""
    checks.positive("data.valid_fraction", valid)
    checks.positive("data.test_fraction", test)
    if valid + test >= 1:
        raise ConfigError(
            f"data.valid_fraction={valid:g} and data.test_fraction={test:g} leave no training text",
            "Lower them so that their sum is below 1.",
        )


def carve(
    paths: Sequence[Path], fractions: Sequence[float], *, at_lines: bool = True
) -> list[tuple[Document, ...]]:
    """Cut the concatenated files into what is left for training, then one run per fraction.

    Each cut moves forward to a line start (or a file's end), or where none is near and with
    `at_lines` off to the start of a UTF-8 character; so no byte is lost and none is torn off.

    Args:
        fractions: shares of the bytes that the last splits get, in the order of the text.

    Raises:
        DataError: too few bytes for a split, or a file cannot be read.
    """
    sizes = [size_of(path) for path in paths]
    total = sum(sizes)
    # Half of the smallest split at most: no cut can then overtake the next one or the end.
    reach = min(MAX_REACH, int(total * min(fractions, default=0)) // 2) if at_lines else 0
    cuts = [0]
    for index in range(len(fractions)):
        cut = total - round(total * sum(fractions[index:]))
        cuts.append(_aligned(paths, sizes, cut, reach))
    cuts.append(total)
    splits = []
    for start, stop in pairwise(cuts):
        if start >= stop:
            raise DataError(
                f"{paths[0]}: {total:,} bytes are too few to cut into {len(cuts) - 1} splits",
                "Give more text, or larger fractions.",
            )
        splits.append(_documents(paths, sizes, start, stop))
    return splits


def first_bytes(documents: Sequence[Document], num_bytes: int) -> tuple[Document, ...]:
    """The documents up to `num_bytes`, the last one cut at a line start, if one is near."""
    kept: list[Document] = []
    for document in documents:
        stop = size_of(document.path) if document.stop is None else document.stop
        if stop - document.start > num_bytes:
            cut = _boundary(document.path, document.start + num_bytes, MAX_REACH)
            return (*kept, replace(document, stop=min(cut, stop)))
        kept.append(document)
        num_bytes -= stop - document.start
        if num_bytes == 0:
            break
    return tuple(kept)


def _documents(
    paths: Sequence[Path], sizes: Sequence[int], start: int, stop: int
) -> tuple[Document, ...]:
    """The files' ranges that make up [start, stop) of their concatenation."""
    documents = []
    base = 0
    for path, size in zip(paths, sizes, strict=True):
        first, last = max(start - base, 0), min(stop - base, size)
        if first < last:
            documents.append(Document(path, first, None if last == size else last))
        base += size
    return tuple(documents)


def _aligned(paths: Sequence[Path], sizes: Sequence[int], cut: int, reach: int) -> int:
    base = 0
    for path, size in zip(paths, sizes, strict=True):
        if base < cut < base + size:
            return base + _boundary(path, cut - base, reach)
        base += size
    return cut


def _boundary(path: Path, offset: int, reach: int) -> int:
    """The next line start within `reach`, else the next character's start."""
    with reading(path), path.open("rb") as file:
        file.seek(offset - 1)
        window = file.read(max(reach + 1, 5))  # a character has at most three later bytes
    newline = window.find(b"\n", 0, reach + 1)
    if reach and newline >= 0:
        return offset + newline
    if len(window) <= reach:
        return offset - 1 + len(window)
    ahead = next((i for i, byte in enumerate(window[1:]) if byte & 0xC0 != 0x80), 0)
    return offset + (ahead if ahead <= 3 else 0)  # a longer run is not UTF-8 anyway
