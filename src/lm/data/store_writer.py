"""Writing the files of a token store as its tokens come."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm.data.counts import Place, TextCounts
from lm.data.journal import Entry, append
from lm.data.store_header import (
    FLOOR,
    FORMAT,
    HEADER,
    RECALLED,
    UNITS,
    File,
    Header,
    dtype_of,
    narrowed,
    shard_name,
)
from lm.data.truth import MARKS_DTYPE, NATS_DTYPE, TokenTruth
from lm.errors import DataError
from lm.runtime.files import sync


class _Writer:
    """One file of the store: written, hashed and counted at the same time.

    Args:
        kept: so many of the items that it has already stay.
    """

    def __init__(self, path: Path, dtype: str, stack: ExitStack, kept: int = 0) -> None:
        self._path = path
        self._dtype = dtype
        self._file = stack.enter_context(path.open("r+b" if kept else "wb"))
        self._digest = hashlib.sha256()
        self.items = kept
        left = kept * np.dtype(dtype).itemsize
        while left:
            chunk = self._file.read(min(left, 1 << 22))
            self._digest.update(chunk)
            left -= len(chunk)
        self._file.truncate()

    def write(self, values: NDArray[Any]) -> None:
        raw = np.ascontiguousarray(values, self._dtype).data
        self._file.write(raw)
        self._digest.update(raw)
        self.items += len(values)

    def so_far(self) -> File:
        """What is on the disk, after bringing it there."""
        self._file.flush()
        sync(self._path)
        return File(name=self._path.name, items=self.items, sha256=self._digest.hexdigest())

    def close(self) -> File:
        file = self.so_far()
        self._file.close()
        return file


class StoreWriter:
    """The shards and units of a store that is being written into `folder`.

    Args:
        before: where the text stands before the block that is added, for the journal; None keeps
            none.
        entries: of the journal, to go on from the last.
    """

    def __init__(
        self,
        folder: Path,
        vocab_size: int,
        shard_tokens: int,
        stack: ExitStack,
        *,
        before: Callable[[], Place] | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._shard_tokens = shard_tokens
        self._stack = stack
        self._before = before
        self._shard: _Writer | None = None
        self._beside: dict[str, _Writer] = {}
        self._shards = [entry.shard for entry in entries]
        self._max_id = self._written = 0
        if entries:
            last = entries[-1]
            self._max_id = last.max_id
            # The block that the last shard ends in comes again, and in part is there already.
            self._written = len(entries) * shard_tokens - last.place.counts.num_tokens
            if last.units is not None:
                units = _Writer(folder / UNITS, "<u8", stack, kept=last.units.items)
                self._beside[UNITS] = units

    def add(
        self,
        ids: NDArray[Any],
        unit_ends: NDArray[np.int64] | None,
        truth: TokenTruth | None = None,
    ) -> None:
        """Append tokens, filling shard after shard, the positions that end a unit, and what the
        tokens cost their source.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        rest = narrowed(ids, self._vocab_size)
        self._max_id = max(self._max_id, int(rest.max(initial=0)))
        rest, self._written = rest[self._written :], max(self._written - len(rest), 0)
        while len(rest):
            if self._shard is None:
                path = self._folder / shard_name(len(self._shards))
                self._shard = _Writer(path, dtype_of(self._vocab_size), self._stack)
            room = self._shard_tokens - self._shard.items
            self._shard.write(rest[:room])
            rest = rest[room:]
            if self._shard.items == self._shard_tokens:
                self._finish_shard(self._shard)
        if unit_ends is not None:
            self._add_beside(UNITS, "<u8", unit_ends)
        if truth is not None:
            self._add_beside(FLOOR, NATS_DTYPE, truth.nats)
            if truth.recalled is not None:
                self._add_beside(RECALLED, MARKS_DTYPE, truth.recalled)

    def _finish_shard(self, shard: _Writer) -> None:
        self._shards.append(shard.close())
        self._shard = None
        if self._before is not None:
            units = self._beside.get(UNITS)
            written = None if units is None else units.so_far()
            append(self._folder, Entry(self._shards[-1], self._before(), written, self._max_id))

    def _add_beside(self, name: str, dtype: str, values: NDArray[Any]) -> None:
        """Append to a file of what is known of the tokens."""
        if name not in self._beside:
            self._beside[name] = _Writer(self._folder / name, dtype, self._stack)
        self._beside[name].write(values)

    def finish(self, tokenizer: str, counts: TextCounts) -> None:
        """Close the files and write the header that makes them a store.

        Raises:
            DataError: there are no tokens.
        """
        if self._shard is not None:
            self._shards.append(self._shard.close())
        if not self._shards:
            raise DataError("the text has no tokens", "Give a text with at least one word.")
        beside = {name: writer.close() for name, writer in self._beside.items()}
        header = Header(
            format=FORMAT,
            dtype=dtype_of(self._vocab_size),
            vocab_size=self._vocab_size,
            tokenizer=tokenizer,
            num_tokens=sum(shard.items for shard in self._shards),
            max_id=self._max_id,
            num_bytes=counts.num_bytes,
            num_words=counts.num_words,
            first_token_bytes=counts.first_token_bytes,
            first_token_words=counts.first_token_words,
            unknown_count=counts.unknown_count,
            rewritten_lines=counts.rewritten_lines,
            shards=tuple(self._shards),
            units=beside.get(UNITS),
            floor=beside.get(FLOOR),
            recalled=beside.get(RECALLED),
        )
        (self._folder / HEADER).write_text(json.dumps(asdict(header), indent=1), encoding="utf-8")
        sync(self._folder / HEADER)
