"""Text → tokenizer → token stores, in a cache keyed by content.

tokenizers/<key>.json      by the configuration and the bytes of the training split
tokens/<key>/              by the bytes of a split, the tokenizer's fingerprint and the unit, and
                           what is known of the source's probabilities
surveys/                   hashes of large texts by the names, sizes and times of their files
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lm.data.corpus import SPLITS, Corpus, Document, Unit
from lm.data.encoder import ChangedError, Split
from lm.data.encoding import encode_split
from lm.data.store import TokenStore
from lm.data.survey import forget, survey
from lm.data.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, save_tokenizer
from lm.data.truth_reader import content_of
from lm.errors import CheckpointError, DataError
from lm.runtime.lock import exclusive

logger = logging.getLogger(__name__)

# Raised when the same input would give other tokens than before.
VERSION = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tokenizer and the splits encoded with it.

    Attributes:
        encoded: the splits that were not there already.
    """

    tokenizer: Tokenizer
    stores: dict[str, TokenStore]
    encoded: tuple[str, ...]


def prepare(
    corpus: Corpus,
    tokenizer: TokenizerConfig | Tokenizer,
    unit: Unit,
    cache: Path,
    *,
    splits: Sequence[str] = SPLITS,
    workers: int | None = None,
) -> Prepared:
    """Train the tokenizer if it is a configuration, and encode the splits; or find both done.

    The cache follows the content of the text rather than its name. The text is read for that
    (more than 1 GB/s), unless it is large and the same files were read before. Several processes
    may prepare the same text at once: one does, the others wait.

    Args:
        workers: processes that encode, at most; None is as many as there are cores.

    Raises:
        DataError: a split is empty, a file cannot be read, encoded or changes meanwhile.
        StorageError: the cache cannot be written.
    """
    surveys = cache / "surveys"
    hashes = {}
    for name in splits:
        found = survey(corpus.split(name), surveys)
        if found.num_bytes == 0:
            raise DataError(f"{corpus.describe(name)} is empty", "Give it some text.")
        hashes[name] = found.content
    if isinstance(tokenizer, TokenizerConfig):
        train_hash = hashes.get("train") or survey(corpus.train, surveys).content
        tokenizer = _trained(tokenizer, corpus.train, train_hash, cache / "tokenizers", workers)
    stores, encoded = {}, []
    for name, content in hashes.items():
        label = f"the {name} split of {corpus.name}"
        split = Split(label, corpus.describe(name), corpus.split(name), content)
        try:
            stores[name], known = _stored(split, tokenizer, unit, cache / "tokens", workers)
        except ChangedError:
            forget(split.documents, surveys)
            raise
        if not known:
            encoded.append(name)
    return Prepared(tokenizer, stores, tuple(encoded))


def _key(**parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _trained(
    config: TokenizerConfig,
    documents: Sequence[Document],
    content: str,
    folder: Path,
    workers: int | None,
) -> Tokenizer:
    path = folder / f"{_key(version=VERSION, content=content, config=config.identity())}.json"
    with exclusive(path):
        if path.exists():
            try:
                return load_tokenizer(path)
            except CheckpointError as error:
                logger.warning("training the tokenizer again: %s", error.cause)
        tokenizer = config.build_by(documents, workers)
        save_tokenizer(tokenizer, path)
    return tokenizer


def _stored(
    split: Split, tokenizer: Tokenizer, unit: Unit, folder: Path, workers: int | None
) -> tuple[TokenStore, bool]:
    """The split's store, and whether it was there already."""
    parts = {"content": split.content, "tokenizer": tokenizer.fingerprint, "unit": unit.name}
    if truth := content_of(split.documents):
        parts["truth"] = truth
    path = folder / _key(version=VERSION, **parts)
    with exclusive(path):
        if path.exists():
            try:
                store = TokenStore.open(path)
                store.verify(tokenizer.fingerprint, tokenizer.vocab_size)
                return store, True
            except DataError as error:
                logger.warning("encoding %s again: %s", split.name, error.cause)
        return encode_split(path, split, tokenizer, unit, workers=workers), False
