"""A split's text to tokens, with what else has to be known of each of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm.data.corpus import Document, Unit
from lm.data.pieces import Piece, TextCounts, pieces, words_within
from lm.data.store import Block
from lm.data.tokenizers import Tokenizer
from lm.data.truth import TokenTruth
from lm.data.truth_reader import TruthReader
from lm.errors import DataError

BATCH_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Split:
    """A split of a corpus.

    Attributes:
        name, described: for messages; the second with its files.
        content: the hash that its bytes must have.
    """

    name: str
    described: str
    documents: Sequence[Document]
    content: str


class Encoder:
    """Encodes a split once, counting its text and checking its hash on the way."""

    def __init__(self, split: Split, tokenizer: Tokenizer, unit: Unit) -> None:
        self._split = split
        self._tokenizer = tokenizer
        self._unit = unit
        self.counts = TextCounts()
        self._num_tokens = 0
        self._last_end = -1
        known = any(document.truth is not None for document in split.documents)
        self._truth = TruthReader(split.documents) if known else None

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
        truth = self._read_truth(batch, texts, encoded)
        return Block(np.concatenate(encoded), self._unit_ends(ends[ends_unit]), truth)

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

    def _read_truth(
        self, batch: list[Piece], texts: list[bytes], encoded: list[NDArray[np.int64]]
    ) -> TokenTruth | None:
        """What is known of the tokens' probabilities under the source, by their bytes."""
        if self._truth is None:
            return None
        starts = np.cumsum([0, *map(len, texts)])
        ends = [
            start + self._tokenizer.token_ends(text, ids)
            for start, text, ids in zip(starts, texts, encoded, strict=False)
        ]
        return self._truth.read(batch, np.concatenate(ends))

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
