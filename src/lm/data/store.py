"""Tokens on disk: memory-mapped shards with a header that says what they hold.

header.json              types, counts, SHA-256 of every file; written last
shard-00000.bin …        token ids, little-endian, as narrow as the vocabulary allows
units.bin                uint64: position of the last token of each unit; absent for streams
floor.bin recalled.bin   of each token, where its source is known (`lm.data.truth`)
"""

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.typing import NDArray

from lm.data.counts import TextCounts
from lm.data.store_header import HEADER, File, Header, check_files, read_header
from lm.data.store_writer import StoreWriter
from lm.data.truth import MARKS_DTYPE, NATS_DTYPE, TokenTruth
from lm.data.verification import REMEDY, Verification
from lm.errors import DataError
from lm.runtime.files import folder_atomically, storage_errors

SHARD_TOKENS = 1 << 27
# Enough to tell the frequent tokens from the rare ones.
COUNTED_TOKENS = 1 << 26
# Each takes one of the files that a process may have open.
MAPPED_SHARDS = 128
# Verified before anything is read from it, in half a second; more in the background.
VERIFIED_BYTES = 1 << 28


class Block(NamedTuple):
    """Consecutive token ids, the positions in the split of those that end a unit, and what the
    source of the text knows of them.
    """

    ids: NDArray[Any]
    unit_ends: NDArray[np.int64] | None = None
    truth: TokenTruth | None = None


class TokenStore:
    """The tokens of a split, read from disk as they are asked for.

    `store[a:b]` gives the ids from position a to b.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self._shard = lru_cache(MAPPED_SHARDS)(self._mapped)  # each holds a file open
        self._background: Verification | None = None
        self._starts = np.cumsum([0, *(shard.items for shard in header.shards)])
        units = header.units
        self._units: NDArray[np.uint64] = (
            np.memmap(path / units.name, "<u8", "r", shape=(units.items,))
            if units is not None and units.items
            else np.empty(0, np.uint64)
        )

    @classmethod
    def open(cls, path: Path) -> "TokenStore":
        """Open a store after checking its header and the sizes of its files.

        Raises:
            DataError: the store is missing or damaged.
        """
        try:
            header = read_header(path / HEADER)
            check_files(path, header)
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            raise DataError(f"token store {path} is damaged: {error}", REMEDY) from error
        return cls(path, header)

    def _mapped(self, index: int) -> NDArray[Any]:
        shard = self.header.shards[index]
        try:
            return np.memmap(self.path / shard.name, self.header.dtype, "r", shape=(shard.items,))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot map {self.path / shard.name}: {error}", REMEDY) from error

    def __len__(self) -> int:
        return self.header.num_tokens

    def __getitem__(self, positions: slice) -> NDArray[np.int64]:
        start, stop, step = positions.indices(len(self))
        assert step == 1, "a store is read forwards"
        ids = np.empty(max(stop - start, 0), np.int64)
        index = int(np.searchsorted(self._starts, start, "right")) - 1
        filled = 0
        while filled < len(ids):
            first = start + filled - int(self._starts[index])
            part = self._shard(index)[first : first + len(ids) - filled]
            ids[filled : filled + len(part)] = part
            filled += len(part)
            index += 1
        if self._background is not None:
            self._background.check(ids)
        return ids

    def unit_ends(self, start: int, stop: int) -> NDArray[np.int64]:
        """Positions in [start, stop) whose token is the last of a unit."""
        first, last = np.searchsorted(self._units, np.array([start, stop], np.uint64))
        return self._units[first:last].astype(np.int64)

    def token_counts(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each token occurs in the first part of the split, at most `COUNTED_TOKENS`."""
        counts = np.zeros(vocab_size, np.int64)
        for begin in range(0, min(len(self), COUNTED_TOKENS), 1 << 20):
            counts += np.bincount(self[begin : begin + (1 << 20)], minlength=vocab_size)
        return counts

    @cached_property
    def floor(self) -> Float[ndarray, " N"] | None:
        """Nats of each target, all tokens but the first, under the source that drew the text.

        None where the source is unknown, or the tokens are not the text, so that predicting them
        is another task than predicting it.
        """
        return self._known(self.header.floor, NATS_DTYPE)

    @cached_property
    def recalled(self) -> UInt8[ndarray, " N"] | None:
        """The mark of each target; None where no symbols follow from earlier ones."""
        return self._known(self.header.recalled, MARKS_DTYPE)

    def _known(self, file: File | None, dtype: str) -> ndarray | None:
        if file is None or self.lossless_reason() is not None:
            return None
        items: ndarray = np.memmap(self.path / file.name, dtype, "r", shape=(file.items,))
        return items[1:]

    @cached_property
    def floor_nats(self) -> float | None:
        """Their sum."""
        return None if self.floor is None else float(self.floor.sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of the files: the tokens and the unit boundaries."""
        hashes = "".join(file.sha256 for file in self.header.files)
        return hashlib.sha256(hashes.encode()).hexdigest()

    @property
    def predicted_bytes(self) -> int:
        """Bytes of the original text that the predicted tokens, all but the first, cover."""
        return self.header.predicted_bytes

    def lossless_reason(self) -> str | None:
        """Why the tokens do not give the original text back, or None when they do."""
        return self.header.lossless_reason()

    def verify(self, tokenizer: str, vocab_size: int) -> None:
        """Compare every file with its hash, and every id with the vocabulary.

        Of a large store this is done in the background: what is wrong then is raised by whoever
        reads tokens next, or by `settle`.

        Args:
            tokenizer: fingerprint of the tokenizer that the tokens must be of.

        Raises:
            DataError: a file was altered, or the store is another tokenizer's.
        """
        if (self.header.tokenizer, self.header.vocab_size) != (tokenizer, vocab_size):
            raise DataError(f"token store {self.path} is of another tokenizer", REMEDY)
        verification = Verification(self.path, self.header)
        if verification.num_bytes > VERIFIED_BYTES:
            verification.start()
            self._background = verification
        else:
            verification.run()

    def settle(self) -> None:
        """Wait until the store is verified.

        Raises:
            DataError: a file was altered.
        """
        if self._background is not None:
            self._background.settle()
            self._background = None


def write_store(
    path: Path,
    blocks: Iterable[Block],
    *,
    vocab_size: int,
    tokenizer: str = "",
    counts: TextCounts | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenStore:
    """Write a store as its tokens come, whole or not at all; an old one at `path` is replaced.

    Args:
        tokenizer: the tokenizer's fingerprint.
        counts: what to say of the text; read after the last block, so that whoever makes the
            blocks may count while doing so.

    Raises:
        DataError: a token id is outside the vocabulary, or there are no tokens.
        StorageError: disk full or read-only.
    """
    with storage_errors(f"write {path}"), folder_atomically(path) as new, ExitStack() as stack:
        writer = StoreWriter(new, vocab_size, shard_tokens, stack)
        for block in blocks:
            writer.add(*block)
        writer.finish(tokenizer, counts or TextCounts())
    return TokenStore.open(path)
