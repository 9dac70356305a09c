"""Encoding a split into a store, from where an interrupted process left off."""

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lm.data import journal
from lm.data.corpus import Unit
from lm.data.encoder import Encoder, PlaceError, Split
from lm.data.store import SHARD_TOKENS, TokenStore
from lm.data.store_header import dtype_of
from lm.data.store_writer import StoreWriter
from lm.data.tokenizers import Tokenizer
from lm.errors import DataError
from lm.runtime.files import put_folder, storage_errors

logger = logging.getLogger(__name__)


def encode_split(
    path: Path,
    split: Split,
    tokenizer: Tokenizer,
    unit: Unit,
    *,
    workers: int | None = 1,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenStore:
    """Make the store at `path`, replacing what is there; whole or not at all.

    What is finished of it lies in a folder beside it, so that the next process goes on there if
    this one is killed or the disk is full.

    Args:
        workers: processes at most; None is as many as there are cores.

    Raises:
        DataError: the text changed, cannot be read or encoded, or has no tokens.
        StorageError: disk full or read-only.
    """
    folder = path.with_name(f".part-{path.name}")
    with storage_errors(f"write {path}"):
        entries = journal.finished(folder, shard_tokens, _width(tokenizer))
        started = time.perf_counter()
        try:
            _encode(folder, split, tokenizer, unit, workers, shard_tokens, entries)
        except PlaceError:
            logger.warning("%s changed since it was encoded in part: encoding it anew", split.name)
            _encode(folder, split, tokenizer, unit, workers, shard_tokens, [])
        put_folder(folder, path)
        (path / journal.JOURNAL).unlink(missing_ok=True)
    store = TokenStore.open(path)
    logger.info(
        "encoded %s: %s tokens of %s bytes in %.1f s",
        split.name, f"{len(store):,}", f"{store.header.num_bytes:,}", time.perf_counter() - started,
    )  # fmt: skip
    return store


def _width(tokenizer: Tokenizer) -> int:
    return np.dtype(dtype_of(tokenizer.vocab_size)).itemsize


def _encode(
    folder: Path,
    split: Split,
    tokenizer: Tokenizer,
    unit: Unit,
    workers: int | None,
    shard_tokens: int,
    entries: Sequence[journal.Entry],
) -> None:
    place = None
    if entries:
        place = entries[-1].place
        logger.info("%s: going on after %d finished shards", split.name, len(entries))
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    journal.begin(folder, entries)
    encoder = Encoder(split, tokenizer, unit, workers=workers, place=place)
    before = (lambda: encoder.place) if encoder.continuable else None
    try:
        with ExitStack() as held:
            writer = StoreWriter(
                folder, tokenizer.vocab_size, shard_tokens, held, before=before, entries=entries
            )
            for block in encoder.blocks():
                writer.add(*block)
            writer.finish(tokenizer.fingerprint, encoder.counts)
    except DataError:  # another text will come
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        if not (folder / journal.JOURNAL).stat().st_size:
            shutil.rmtree(folder, ignore_errors=True)
        raise
