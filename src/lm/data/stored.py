"""How a text lies in a file: as it is, compressed by gzip or zstd, as JSON with a document a line.

Compressed text is read within limits, for a small file may unpack to any length; what is damaged is
an error with the offset in the file, or the line.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard

from lm.errors import DataError

# Text shrinks three- to fivefold, a bomb a thousandfold; a file of a few repeated lines may.
MAX_RATIO = 100
FREE_BYTES = 1 << 26
# A book has a megabyte.
LONGEST_LINE = 1 << 26
_READ_BYTES = 1 << 20
# Two kilobytes of a zstd bomb unpack to 64 megabytes at most, before the ratio is looked at.
_ZSTD_BYTES = 1 << 11
_ZSTD_WINDOW = 1 << 27
_REMEDY = "Get the file again, or unpack it with its own program to see what is wrong."


class Compression(Enum):
    """By what program a file is compressed, as its name says."""

    gzip = ".gz"
    zstd = ".zst"


class Form(NamedTuple):
    """How a text lies in its file.

    Attributes:
        compression: None is none.
        field: of the JSON objects, one a line, whose value is a document; None is plain text.
    """

    compression: Compression | None = None
    field: str | None = None


PLAIN = Form()


class Text(NamedTuple):
    """A document's bytes as they come.

    Attributes:
        name: for messages.
        offset: where in the file, or in the line's document, they begin.
    """

    name: str
    offset: int
    chunks: Iterator[bytes]


def form_of(path: Path, field: str | None) -> Form:
    """What a file's name says: `.gz`, `.zst`, and before that `.jsonl` or `.ndjson`."""
    compression = next((kind for kind in Compression if path.suffix.lower() == kind.value), None)
    inner = path.suffixes[-1 if compression is None else -2 :][:1]
    is_json = bool(inner) and inner[0].lower() in (".jsonl", ".ndjson")
    return Form(compression, field if is_json else None)


def unpacked(path: Path, file: BinaryIO, compression: Compression, size: int) -> Iterator[bytes]:
    """The text of a compressed file, at most `size` bytes at a time for gzip.

    Raises:
        DataError: the file is damaged, cut off, or unpacks to more than any text would.
    """
    read = _gunzipped if compression is Compression.gzip else _unzstd
    total = 0
    try:
        for chunk in read(file, size):
            total += len(chunk)
            if total > FREE_BYTES + MAX_RATIO * file.tell():
                raise DataError(
                    f"{path} refused: its first {file.tell():,} bytes unpack to more than"
                    f" {total:,}, over {MAX_RATIO} times as many",
                    "If this is text all the same, unpack it yourself.",
                )
            yield chunk
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: damaged {compression.name} near byte offset {file.tell()}: {error}", _REMEDY
        ) from error


def _gunzipped(file: BinaryIO, size: int) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unzipped:
        while chunk := unzipped.read(size):
            yield chunk


def _unzstd(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Frame by frame: the library's own reader takes a file that is cut off for a whole one."""
    frame = None
    while packed := file.read(_ZSTD_BYTES):
        while packed:
            if frame is None:
                frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
            if chunk := frame.decompress(packed):
                yield chunk
            packed = b""
            if frame.eof:
                packed, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError("the file ends in the middle of its data")


def documents_of(path: Path, start: int, chunks: Iterable[bytes], field: str) -> Iterator[Text]:
    """The documents of JSON lines, each followed by the newline that ends its line.

    A document that ends in a newline gets no other. Empty lines hold no document.

    Raises:
        DataError: a line is longer than `LONGEST_LINE` or no JSON object with text in `field`.
    """
    after = f" after byte {start}" if start else ""
    for number, line in enumerate(_lines(path, chunks), 1):
        if line.strip():
            name = f"{path}: line {number}{after}"
            document = _document(name, line, field)
            yield Text(name, 0, iter([document]))


def _document(name: str, line: bytes, field: str) -> bytes:
    remedy = f'A line has the form {{{json.dumps(field)}: "…"}}; data.field names another field.'
    try:
        content = json.loads(line)
        text = content[field].encode()
    except (ValueError, RecursionError) as error:  # a lone surrogate is a ValueError too
        raise DataError(f"{name} cannot be read: {error}", remedy) from error
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{name} has no text in {field!r}", remedy) from error
    document: bytes = text if text.endswith(b"\n") else text + b"\n"
    return document


def _lines(path: Path, chunks: Iterable[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    length = 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield b"".join([*begun, line])
            begun, length = [], 0
        begun.append(rest)
        length += len(rest)
        if length > LONGEST_LINE:
            raise DataError(
                f"{path}: a line of more than {LONGEST_LINE:,} bytes",
                "Is this JSON, a document a line? If not, set data.field=null or rename the file.",
            )
    yield b"".join(begun)
