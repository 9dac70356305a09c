"""The header of a token store: what it holds, and whether its files agree with it."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm.errors import DataError

FORMAT = 1
HEADER = "header.json"
UNITS, FLOOR, RECALLED = "units.bin", "floor.bin", "recalled.bin"
_LARGEST_HEADER = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the store: its items and their hash."""

    name: str
    items: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a store holds.

    Attributes:
        vocab_size: V; every id is below it.
        tokenizer: fingerprint of the tokenizer that made the tokens.
        num_bytes, num_words: of the original text; each newline is a word.
        first_token_bytes, first_token_words: how much of them the first token covers.
        unknown_count: tokens that stand for something outside the vocabulary.
        rewritten_lines: lines that decode to other whitespace.
        max_id: the largest id that occurs.
        units: None where the text is one stream.
        floor: float64 nats of each token under the source that drew the text, where it is known.
        recalled: uint8 mark of each token, where some follow from earlier ones (`lm.data.truth`).
    """

    format: int
    dtype: str
    vocab_size: int
    tokenizer: str
    num_tokens: int
    max_id: int
    num_bytes: int
    num_words: int
    first_token_bytes: int
    first_token_words: int
    unknown_count: int
    rewritten_lines: int
    shards: tuple[File, ...]
    units: File | None
    floor: File | None = None
    recalled: File | None = None

    @property
    def files(self) -> tuple[File, ...]:
        """The shards, then the units if there are any."""
        return self.shards if self.units is None else (*self.shards, self.units)

    @property
    def all_files(self) -> tuple[File, ...]:
        """These, and what is known of the tokens."""
        return *self.files, *(file for file in (self.floor, self.recalled) if file is not None)

    @property
    def predicted_bytes(self) -> int:
        """Bytes of the original text that the predicted tokens, all but the first, cover."""
        return self.num_bytes - self.first_token_bytes

    @property
    def predicted_words(self) -> int:
        """Words that are not wholly inside the first token."""
        return self.num_words - self.first_token_words

    def lossless_reason(self) -> str | None:
        """Why the tokens do not give the original text back, or None when they do."""
        if self.unknown_count:
            return f"{self.unknown_count} unknown tokens"
        if self.rewritten_lines:
            return f"whitespace rewritten on {self.rewritten_lines} lines"
        return None


def dtype_of(vocab_size: int) -> str:
    """The narrowest type that holds every id; nothing is ever stored modulo anything."""
    return "<u1" if vocab_size <= 1 << 8 else "<u2" if vocab_size <= 1 << 16 else "<u4"


def narrowed(ids: NDArray[Any], vocab_size: int) -> NDArray[Any]:
    """Ids in the type that a store has them in.

    Raises:
        DataError: one is outside the vocabulary.
    """
    low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
    if low < 0 or high >= vocab_size:
        raise DataError(
            f"token id {low if low < 0 else high} is outside the vocabulary of {vocab_size}",
            "Encode with the tokenizer whose vocabulary is given.",
        )
    return ids.astype(dtype_of(vocab_size), copy=False)


def read_header(path: Path) -> Header:
    """Read `header.json`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not a header.
    """
    if path.stat().st_size > _LARGEST_HEADER:
        raise ValueError(f"{HEADER} is too large")
    data: dict[str, Any] = json.loads(path.read_bytes())
    shards = tuple(File(**shard) for shard in data.pop("shards"))
    # A store of before these were known lacks them.
    beside: dict[str, Any] = {name: data.pop(name, None) for name in ("units", "floor", "recalled")}
    files: dict[str, Any] = {
        name: None if value is None else File(**value) for name, value in beside.items()
    }
    header = Header(**data, shards=shards, **files)
    owners: list[Header | File] = [header, *header.all_files]
    for owner in owners:
        for entry in fields(owner):
            value = getattr(owner, entry.name)
            if entry.type is int and not (type(value) is int and 0 <= value < 1 << 62):
                raise ValueError(f"{entry.name} is {value!r}")
            if entry.type is str and not isinstance(value, str):
                raise ValueError(f"{entry.name} is {value!r}")
    return header


def check_files(path: Path, header: Header) -> None:
    """Compare the header with itself and with the files in the folder `path`.

    Raises:
        ValueError: saying what differs.
    """
    if header.format != FORMAT:
        raise ValueError(f"format {header.format}, this lm reads {FORMAT}")
    if header.dtype != dtype_of(header.vocab_size) or header.max_id >= header.vocab_size:
        raise ValueError(f"{header.dtype} up to {header.max_id}, vocabulary {header.vocab_size}")
    if sum(shard.items for shard in header.shards) != header.num_tokens or not header.num_tokens:
        raise ValueError(f"its shards do not add up to {header.num_tokens} tokens")
    itemsize = np.dtype(header.dtype).itemsize
    expected = {shard_name(k): (shard, itemsize) for k, shard in enumerate(header.shards)}
    if header.units is not None:
        expected[UNITS] = (header.units, 8)
    for known, name, width in ((header.floor, FLOOR, 8), (header.recalled, RECALLED, 1)):
        if known is not None:
            if known.items != header.num_tokens:
                raise ValueError(f"{name} has {known.items} items for {header.num_tokens} tokens")
            expected[name] = (known, width)
    for name, (file, width) in expected.items():
        found = (path / name).stat().st_size
        if file.name != name or found != file.items * width:
            raise ValueError(f"{name} has {found} bytes instead of {file.items * width}")


def shard_name(index: int) -> str:
    """The only file name a shard may have."""
    return f"shard-{index:05d}.bin"
