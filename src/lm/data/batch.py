"""Some pieces of text and their tokens, as one process hands them to another.

What becomes of a batch depends on nothing but its bytes and the one before them, so that batches
may be encoded anywhere and in any order.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm.data.corpus import Unit
from lm.data.counts import NEWLINE, TextCounts, words_within
from lm.data.frames import Frames
from lm.data.pieces import Piece
from lm.data.store_header import narrowed
from lm.data.tokenizers.base import Tokenizer
from lm.data.tokenizers.registry import tokenizer_from_json

BATCH_BYTES = 1 << 18


class Batch(NamedTuple):
    """Consecutive pieces.

    Attributes:
        previous: the byte before them in their document.
    """

    pieces: list[Piece]
    previous: int = NEWLINE

    @property
    def num_bytes(self) -> int:
        """Bytes of the text."""
        return sum(len(piece.text) for piece in self.pieces)

    def frames(self) -> Frames:
        """As bytes."""
        lengths = np.array([len(piece.text) for piece in self.pieces], "<u4")
        lasts = np.array([piece.last for piece in self.pieces], np.uint8)
        text = b"".join([piece.text for piece in self.pieces])
        return [bytes([self.previous]), lengths.tobytes(), lasts.tobytes(), text]

    @classmethod
    def of(cls, frames: Frames) -> "Batch":
        """The inverse of `frames`."""
        previous, lengths, lasts, text = frames
        ends = np.cumsum(np.frombuffer(lengths, "<u4"), dtype=np.int64).tolist()
        spans = zip([0, *ends], ends, lasts, strict=False)
        return cls([Piece(text[a:b], bool(last)) for a, b, last in spans], previous[0])


def batches(stream: Iterable[Piece]) -> Iterator[Batch]:
    """Pieces in batches of some `BATCH_BYTES`."""
    held: list[Piece] = []
    total, previous, following = 0, NEWLINE, NEWLINE
    for piece in stream:
        held.append(piece)
        total += len(piece.text)
        if piece.last:
            following = NEWLINE
        elif piece.text:
            following = piece.text[-1]
        if total >= BATCH_BYTES:
            yield Batch(held, previous)
            held, total, previous = [], 0, following
    if held:
        yield Batch(held, previous)


class Encoded(NamedTuple):
    """A batch as tokens.

    Attributes:
        ids: as narrow as a store has them.
        unit_ends: the tokens that end a unit; −1 is the last one before the batch.
        token_ends: the offset behind each token in the text of the batch, if asked for.
    """

    ids: NDArray[Any]
    unit_ends: NDArray[np.int64] | None
    token_ends: NDArray[np.int64] | None
    counts: TextCounts

    def frames(self) -> Frames:
        """As bytes, without `token_ends`."""
        assert self.token_ends is None, "asked for in one process only"
        ends = b"" if self.unit_ends is None else self.unit_ends.tobytes()
        counts = json.dumps([asdict(self.counts), self.ids.dtype.str, self.unit_ends is not None])
        return [counts.encode(), self.ids.tobytes(), ends]

    @classmethod
    def of(cls, frames: Frames) -> "Encoded":
        """The inverse of `frames`."""
        header, ids, ends = frames
        counts, dtype, has_units = json.loads(header)
        unit_ends = np.frombuffer(ends, np.int64) if has_units else None
        return cls(np.frombuffer(ids, dtype), unit_ends, None, TextCounts(**counts))


class BatchEncoder:
    """Encodes batches by a tokenizer, by lines where these are units."""

    def __init__(self, tokenizer: Tokenizer, unit: Unit, *, with_ends: bool = False) -> None:
        self._tokenizer = tokenizer
        self._unit = unit
        self._with_ends = with_ends

    def frames(self) -> Frames:
        """As bytes, for tokenizers that `tokenizer_from_json` knows."""
        return [json.dumps([self._tokenizer.to_json(), self._unit.name]).encode()]

    @classmethod
    def of(cls, frames: Frames) -> "BatchEncoder":
        """The inverse of `frames`."""
        tokenizer, unit = json.loads(frames[0])
        return cls(tokenizer_from_json(tokenizer), Unit[unit])

    def serve(self, job: Frames) -> Frames:
        """`encode` for a process that only talks in bytes."""
        return self.encode(Batch.of(job)).frames()

    def encode(self, batch: Batch) -> Encoded:
        """The tokens of a batch, and what is counted of it."""
        tokenizer = self._tokenizer
        texts, ends_unit = self._texts(batch.pieces)
        encoded = tokenizer.encode_all(texts)
        counts = TextCounts(previous=batch.previous)
        for piece in batch.pieces:
            counts.add(piece, rewrites=tokenizer.rewrites_whitespace, reserved=tokenizer.reserved)
        for text, ids in zip(texts, encoded, strict=True):
            counts.unknown_count += tokenizer.count_unknown(text, ids)
        self._count_first_token(counts, texts, encoded)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        counts.num_tokens = int(lengths.sum())
        unit_ends = None
        if self._unit is not Unit.stream:
            unit_ends = (np.cumsum(lengths) - 1)[ends_unit]
        token_ends = self._token_ends(texts, encoded) if self._with_ends else None
        ids = narrowed(np.concatenate(encoded), tokenizer.vocab_size)
        return Encoded(ids, unit_ends, token_ends, counts)

    def _texts(self, pieces: Sequence[Piece]) -> tuple[list[bytes], NDArray[np.bool_]]:
        """The texts to encode, each by itself, and whether a unit ends with them."""
        if self._unit is not Unit.line:
            return [piece.text for piece in pieces], np.array([piece.last for piece in pieces])
        texts: list[bytes] = []
        ends_unit: list[bool] = []
        for piece in pieces:
            *lines, rest = piece.text.split(b"\n")
            texts += [line + b"\n" for line in lines]
            ends_unit += [True] * len(lines)
            if rest or piece.last:
                texts.append(rest)
                ends_unit.append(piece.last)
        return texts, np.array(ends_unit)

    def _token_ends(
        self, texts: list[bytes], encoded: list[NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        starts = np.cumsum([0, *map(len, texts)])
        ends = [
            start + self._tokenizer.token_ends(text, ids)
            for start, text, ids in zip(starts, texts, encoded, strict=False)
        ]
        return np.concatenate(ends)

    def _count_first_token(
        self, counts: TextCounts, texts: list[bytes], encoded: list[NDArray[np.int64]]
    ) -> None:
        for text, ids in zip(texts, encoded, strict=True):
            covered = self._tokenizer.first_token_bytes(text, ids) if len(ids) else len(text)
            counts.first_token_bytes += covered
            counts.first_token_words += words_within(text, covered)
            if len(ids):
                return
