"""Text → tokenizer → token stores, in a cache keyed by content.

tokenizers/<key>.json      by the configuration and the bytes of the training split
tokens/<key>/              by the bytes of a split, the tokenizer's fingerprint and the unit
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm.data.corpus import SPLITS, Corpus, Document, Unit
from lm.data.pieces import Piece, TextCounts, pieces, progress, size, words_within
from lm.data.store import Block, TokenStore, write_store
from lm.data.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer, save_tokenizer
from lm.errors import CheckpointError, DataError
from lm.runtime.lock import exclusive

logger = logging.getLogger(__name__)

# Raised when the same input would give other tokens than before.
VERSION = 2
BATCH_BYTES = 1 << 18


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
        split = _Split(label, corpus.describe(name), corpus.split(name), content)
        stores[name] = _stored(split, tokenizer, unit, cache / "tokens")
    return Prepared(tokenizer, stores)


@dataclass(frozen=True, slots=True)
class _Split:
    name: str
    described: str
    documents: Sequence[Document]
    content: str


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


def _stored(split: _Split, tokenizer: Tokenizer, unit: Unit, folder: Path) -> TokenStore:
    key = _key(
        version=VERSION, content=split.content, tokenizer=tokenizer.fingerprint, unit=unit.name
    )
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
        encoder = _Encoder(split, tokenizer, unit)
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


class _Encoder:
    """Encodes a split once, counting its text and checking its hash on the way."""

    def __init__(self, split: _Split, tokenizer: Tokenizer, unit: Unit) -> None:
        self._split = split
        self._tokenizer = tokenizer
        self._unit = unit
        self.counts = TextCounts()
        self._num_tokens = 0
        self._last_end = -1

    def blocks(self) -> Iterator[Block]:
        """The tokens of the split, in the order of its documents."""
        stream = pieces(
            self._split.documents,
            self._tokenizer.cut,
            f"encode {self._split.name}",
            by_line=self._unit is Unit.line,
        )
        for batch in _batches(self._checked(stream)):
            yield self._encode(batch)
        if self._num_tokens == 0:
            raise DataError(
                f"{self._split.described} has no tokens: all of it is whitespace",
                "Give it at least one word.",
            )

    def _checked(self, stream: Iterator[Piece]) -> Iterator[Piece]:
        whole, digest = hashlib.sha256(), hashlib.sha256()
        for piece in stream:
            digest.update(piece.text)
            if piece.last:
                whole.update(digest.digest())
                digest = hashlib.sha256()
            yield piece
        if whole.hexdigest() != self._split.content:
            raise DataError(
                f"the files of {self._split.described} changed while they were read",
                "Start again when nothing writes to them.",
            )

    def _encode(self, batch: list[Piece]) -> Block:
        texts, ends_unit = self._parts(batch)
        encoded = self._tokenizer.encode_all(texts)
        for text, ids in zip(texts, encoded, strict=True):
            self.counts.unknown_count += self._tokenizer.count_unknown(text, ids)
        if self._num_tokens == 0:
            self._count_first_token(texts, encoded)
        rewrites, reserved = self._tokenizer.rewrites_whitespace, self._tokenizer.reserved
        for piece in batch:
            self.counts.add(piece, rewrites=rewrites, reserved=reserved)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ends = self._num_tokens + np.cumsum(lengths) - 1
        self._num_tokens += int(lengths.sum())
        return Block(np.concatenate(encoded), self._unit_ends(ends[ends_unit]))

    def _parts(self, batch: list[Piece]) -> tuple[list[bytes], NDArray[np.bool_]]:
        """The texts to encode, each by itself, and whether a unit ends with them."""
        if self._unit is not Unit.line:
            return [piece.text for piece in batch], np.array([piece.last for piece in batch])
        texts: list[bytes] = []
        ends_unit: list[bool] = []
        for piece in batch:
            *lines, rest = piece.text.split(b"\n")
            texts += [line + b"\n" for line in lines]
            ends_unit += [True] * len(lines)
            if rest or piece.last:
                texts.append(rest)
                ends_unit.append(piece.last)
        return texts, np.array(ends_unit)

    def _unit_ends(self, ends: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Positions that end a unit; a unit without tokens ends where the one before it did."""
        if self._unit is Unit.stream:
            return None
        ends = np.unique(ends[ends > self._last_end])
        self._last_end = int(ends.max(initial=self._last_end))
        return ends

    def _count_first_token(self, texts: list[bytes], encoded: list[NDArray[np.int64]]) -> None:
        for text, ids in zip(texts, encoded, strict=True):
            covered = self._tokenizer.first_token_bytes(text, ids) if len(ids) else len(text)
            self.counts.first_token_bytes += covered
            if len(ids):
                self.counts.first_token_words += words_within(text, covered)
                return
            self.counts.first_token_words += words_within(text, len(text))


def _batches(stream: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces in batches of some `BATCH_BYTES`, for tokenizers that use several threads."""
    batch: list[Piece] = []
    total = 0
    for piece in stream:
        batch.append(piece)
        total += len(piece.text)
        if total >= BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
