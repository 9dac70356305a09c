"""Text → tokenizer → token stores, in a cache keyed by content.

tokenizers/<key>.json      by the configuration and the bytes of the training split
tokens/<key>/              by the bytes of a split, the tokenizer's fingerprint and the unit, and
                           what is known of the source's probabilities
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lm.data.corpus import SPLITS, Corpus, Document, Unit
from lm.data.encoder import Encoder, Split
from lm.data.pieces import progress, size
from lm.data.store import TokenStore, write_store
from lm.data.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, save_tokenizer
from lm.data.truth_reader import content_of
from lm.errors import CheckpointError, DataError
from lm.runtime.lock import exclusive

logger = logging.getLogger(__name__)

# Raised when the same input would give other tokens than before.
VERSION = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tokenizer and the splits encoded with it."""

    tokenizer: Tokenizer
    stores: dict[str, TokenStore]


def prepare(
    corpus: Corpus,
    tokenizer: TokenizerConfig | Tokenizer,
    unit: Unit,
    cache: Path,
    *,
    splits: Sequence[str] = SPLITS,
) -> Prepared:
    """Train the tokenizer if it is a configuration, and encode the splits; or find both done.

    The text is always hashed (more than 1 GB/s), so that the cache follows its content rather
    than names and times. Several processes may prepare the same text at once.

    Raises:
        DataError: a split is empty, a file cannot be read, encoded or changes meanwhile.
        StorageError: the cache cannot be written.
    """
    for name in splits:
        if size(corpus.split(name)) == 0:
            raise DataError(f"{corpus.describe(name)} is empty", "Give it some text.")
    hashes = {name: _content_hash(corpus.split(name)) for name in splits}
    if isinstance(tokenizer, TokenizerConfig):
        train_hash = hashes.get("train") or _content_hash(corpus.train)
        tokenizer = _trained(tokenizer, corpus.train, train_hash, cache / "tokenizers")
    stores = {}
    for name, content in hashes.items():
        label = f"the {name} split of {corpus.name}"
        split = Split(label, corpus.describe(name), corpus.split(name), content)
        stores[name] = _stored(split, tokenizer, unit, cache / "tokens")
    return Prepared(tokenizer, stores)


def _content_hash(documents: Sequence[Document]) -> str:
    """Hash of the documents' hashes: moving a boundary between documents changes it."""
    whole = hashlib.sha256()
    with progress(size(documents), "read") as bar:
        for document in documents:
            digest = hashlib.sha256()
            for chunk in document.chunks():
                digest.update(chunk)
                bar.update(len(chunk))
            whole.update(digest.digest())
    return whole.hexdigest()


def _key(**parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _trained(
    config: TokenizerConfig, documents: Sequence[Document], content: str, folder: Path
) -> Tokenizer:
    path = folder / f"{_key(version=VERSION, content=content, config=config.identity())}.json"
    with exclusive(path):
        if path.exists():
            try:
                return load_tokenizer(path)
            except CheckpointError as error:
                logger.warning("training the tokenizer again: %s", error.cause)
        tokenizer = config.build(documents)
        save_tokenizer(tokenizer, path)
    return tokenizer


def _stored(split: Split, tokenizer: Tokenizer, unit: Unit, folder: Path) -> TokenStore:
    parts = {"content": split.content, "tokenizer": tokenizer.fingerprint, "unit": unit.name}
    if truth := content_of(split.documents):
        parts["truth"] = truth
    key = _key(version=VERSION, **parts)
    path = folder / key
    with exclusive(path):
        if path.exists():
            try:
                store = TokenStore.open(path)
                store.verify(tokenizer.fingerprint, tokenizer.vocab_size)
                return store
            except DataError as error:
                logger.warning("encoding %s again: %s", split.name, error.cause)
        for left_behind in folder.glob(f".new-{key}-*"):  # by a process that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        started = time.perf_counter()
        encoder = Encoder(split, tokenizer, unit)
        store = write_store(
            path,
            encoder.blocks(),
            vocab_size=tokenizer.vocab_size,
            tokenizer=tokenizer.fingerprint,
            counts=encoder.counts,
        )
    logger.info(
        "encoded %s: %s tokens of %s bytes in %.1f s",
        split.name, f"{len(store):,}", f"{store.header.num_bytes:,}", time.perf_counter() - started,
    )  # fmt: skip
    return store
