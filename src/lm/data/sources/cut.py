"""Cutting text files into contiguous splits by bytes, without tearing lines or characters."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lm import checks
from lm.data.corpus import Document
from lm.data.sources.local import reading, size_of
from lm.data.stored import form_of
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
    paths: Sequence[Path],
    fractions: Sequence[float],
    *,
    at_lines: bool = True,
    field: str | None = None,
) -> list[tuple[Document, ...]]:
    """Cut the concatenated files into what is left for training, then one run per fraction.

    Each cut moves forward to a line start (or a file's end), or where none is near and with
    `at_lines` off to the start of a UTF-8 character; so no byte is lost and none is torn off.
    JSON is cut at line starts only. Among compressed files none is cut: whole files are given to
    the last splits, until each has its share.

    Args:
        field: of JSON lines, see `form_of`.
        fractions: shares of the bytes that the last splits get, in the order of the text.

    Raises:
        DataError: too few bytes for a split, or a file cannot be read.
    """
    sizes = [size_of(path) for path in paths]
    total = sum(sizes)
    whole = [Document(path, form=form_of(path, field)) for path in paths]
    if any(document.form.compression for document in whole):
        return _by_file(whole, sizes, fractions)
    # Half of the smallest split at most: no cut can then overtake the next one or the end.
    reach = min(MAX_REACH, int(total * min(fractions, default=0)) // 2) if at_lines else 0
    cuts = [0]
    for index in range(len(fractions)):
        cut = total - round(total * sum(fractions[index:]))
        cuts.append(_aligned(whole, sizes, cut, reach))
    cuts.append(total)
    splits = []
    for start, stop in pairwise(cuts):
        if start >= stop:
            raise DataError(
                f"{paths[0]}: {total:,} bytes are too few to cut into {len(cuts) - 1} splits",
                "Give more text, or larger fractions.",
            )
        splits.append(_documents(whole, sizes, start, stop))
    return splits


def _by_file(
    documents: Sequence[Document], sizes: Sequence[int], fractions: Sequence[float]
) -> list[tuple[Document, ...]]:
    """Whole files, by the sizes that they have on the disk; each split gets one at least."""
    splits: list[tuple[Document, ...]] = []
    end = len(documents)
    for before, fraction in reversed(list(enumerate(fractions, 1))):  # splits that need a file too
        begin = end - 1
        while begin > before and sum(sizes[begin:end]) < fraction * sum(sizes):
            begin -= 1
        splits.insert(0, tuple(documents[max(begin, 0) : end]))
        end = begin
    if end < 1:
        raise DataError(
            f"{documents[0].path}: compressed files are not cut, and {len(documents)} are too few"
            f" for {len(fractions) + 1} splits",
            "Give more files, or data.train= with data.valid= and data.test=; or unpack them.",
        )
    return [tuple(documents[:end]), *splits]


def first_bytes(documents: Sequence[Document], num_bytes: int) -> tuple[Document, ...]:
    """The documents up to `num_bytes`, the last one cut at a line start, if one is near."""
    kept: list[Document] = []
    for document in documents:
        if document.form.compression is not None:
            raise DataError(
                f"data.train_bytes={num_bytes}: {document.path} is compressed and cannot be cut",
                "Unpack it, or leave data.train_bytes off.",
            )
        stop = size_of(document.path) if document.stop is None else document.stop
        if stop - document.start > num_bytes:
            cut = _boundary(document, document.start + num_bytes, MAX_REACH)
            return (*kept, replace(document, stop=min(cut, stop)))
        kept.append(document)
        num_bytes -= stop - document.start
        if num_bytes == 0:
            break
    return tuple(kept)


def _documents(
    whole: Sequence[Document], sizes: Sequence[int], start: int, stop: int
) -> tuple[Document, ...]:
    """The files' ranges that make up [start, stop) of their concatenation."""
    documents = []
    base = 0
    for document, size in zip(whole, sizes, strict=True):
        first, last = max(start - base, 0), min(stop - base, size)
        if first < last:
            stop_here = None if last == size else last
            documents.append(replace(document, start=first, stop=stop_here))
        base += size
    return tuple(documents)


def _aligned(whole: Sequence[Document], sizes: Sequence[int], cut: int, reach: int) -> int:
    base = 0
    for document, size in zip(whole, sizes, strict=True):
        if base < cut < base + size:
            return base + _boundary(document, cut - base, reach)
        base += size
    return cut


def _boundary(document: Document, offset: int, reach: int) -> int:
    """The next line start within `reach`, else the next character's start."""
    with reading(document.path), document.path.open("rb") as file:
        file.seek(offset - 1)
        if document.form.field is not None:
            while (line := file.readline(MAX_REACH)) and not line.endswith(b"\n"):
                pass
            return file.tell()
        window = file.read(max(reach + 1, 5))  # a character has at most three later bytes
    newline = window.find(b"\n", 0, reach + 1)
    if reach and newline >= 0:
        return offset + newline
    if len(window) <= reach:
        return offset - 1 + len(window)
    ahead = next((i for i, byte in enumerate(window[1:]) if byte & 0xC0 != 0x80), 0)
    return offset + (ahead if ahead <= 3 else 0)  # a longer run is not UTF-8 anyway
