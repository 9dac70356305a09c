"""A split's text to tokens, with what else has to be known of each of them."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm.data.batch import Batch, BatchEncoder, Encoded, batches
from lm.data.corpus import Document, Unit
from lm.data.counts import Place
from lm.data.frames import Frames
from lm.data.pieces import Piece, pieces
from lm.data.progress import Progress
from lm.data.store import Block
from lm.data.survey import size
from lm.data.tokenizers import LOADERS, Tokenizer
from lm.data.truth import TokenTruth
from lm.data.truth_reader import TruthReader
from lm.data.workers import Workers, worthwhile
from lm.errors import DataError


class ChangedError(DataError):
    """The text is not the one that it was."""


class PlaceError(ChangedError):
    """What lies before a place is not what lay there when the place was noted."""


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


class _Read(NamedTuple):
    """A batch, with its number and the hash of the text before it."""

    number: int
    before: str
    batch: Batch


class _Reader:
    """The text in batches, hashed as a whole."""

    def __init__(self, stream: Iterable[Piece]) -> None:
        self._stream = stream
        self._whole, self._document = hashlib.sha256(), hashlib.sha256()

    def __iter__(self) -> Iterator[_Read]:
        for number, batch in enumerate(batches(self._stream)):
            both = self._whole.digest() + self._document.digest()
            yield _Read(number, hashlib.sha256(both).hexdigest(), batch)
            for piece in batch.pieces:
                self._document.update(piece.text)
                if piece.last:
                    self._whole.update(self._document.digest())
                    self._document = hashlib.sha256()

    def content(self) -> str:
        """Hash of all that was read, as a survey gives it."""
        return self._whole.hexdigest()


class Encoder:
    """Encodes a split once, by several processes if it is long, checking its hash on the way.

    Args:
        workers: processes at most; None is as many as there are cores.
        place: where to go on; what lies before it is only read and compared.

    Attributes:
        place: before the block that was given last.
        counts: of the whole text, once all blocks are given.
    """

    def __init__(
        self,
        split: Split,
        tokenizer: Tokenizer,
        unit: Unit,
        *,
        workers: int | None = 1,
        place: Place | None = None,
    ) -> None:
        self._split = split
        self._unit = unit
        self._cut = tokenizer.cut
        known = any(document.truth is not None for document in split.documents)
        self._truth = TruthReader(split.documents) if known else None
        self._encoder = BatchEncoder(tokenizer, unit, with_ends=known)
        here = known or tokenizer.kind not in LOADERS  # a plugin's, which no other process has
        self._workers = 1 if here else worthwhile(split.documents, workers)
        self.place = place or Place()
        self.counts = replace(self.place.counts)
        self._last_end = self.place.last_end

    @property
    def continuable(self) -> bool:
        """Whether another encoder may go on at a place of this one."""
        return self._truth is None

    def blocks(self) -> Iterator[Block]:
        """The tokens of the split, in the order of its documents.

        Raises:
            PlaceError: other text lies before the place than did when it was noted.
            ChangedError: the text is another than was hashed.
            DataError: a file cannot be read or encoded, or there are no tokens.
        """
        documents, by_line = self._split.documents, self._unit is Unit.line
        reader = _Reader(pieces(documents, self._cut, None, by_line=by_line))
        with Progress(size(documents), f"encode {self._split.name}") as progress:
            stream = self._from_place(reader, progress)
            for read, encoded in self._encoded(stream):
                yield self._block(read, encoded)
                progress.update(encoded.counts.num_bytes, encoded.counts.num_tokens)
        if reader.content() != self._split.content:
            raise self._changed()
        if self.counts.num_tokens == 0:
            raise DataError(
                f"{self._split.described} has no tokens: all of it is whitespace",
                "Give it at least one word.",
            )

    def _from_place(self, reader: _Reader, progress: Progress) -> Iterator[_Read]:
        start = self.place
        for read in reader:
            if read.number < start.batches:
                progress.update(read.batch.num_bytes)
                continue
            if read.number == start.batches and start.text not in ("", read.before):
                raise self._changed(PlaceError)
            yield read

    def _encoded(self, stream: Iterable[_Read]) -> Iterator[tuple[_Read, Encoded]]:
        if self._workers == 1:
            for read in stream:
                yield read, self._encoder.encode(read.batch)
            return
        ahead: deque[_Read] = deque()

        def jobs() -> Iterator[Frames]:
            for read in stream:
                ahead.append(read)
                yield read.batch.frames()

        with Workers(self._workers, b"encode", self._encoder.frames()) as workers:
            for reply in workers.map(jobs()):
                yield ahead.popleft(), Encoded.of(reply)

    def _block(self, read: _Read, encoded: Encoded) -> Block:
        before = self.counts.num_tokens
        self.place = Place(read.number, read.before, self._last_end, replace(self.counts))
        self.counts.follow(encoded.counts)
        truth = self._read_truth(read.batch, encoded.token_ends)
        return Block(encoded.ids, self._unit_ends(encoded.unit_ends, before), truth)

    def _unit_ends(self, ends: NDArray[np.int64] | None, before: int) -> NDArray[np.int64] | None:
        """Positions that end a unit; a unit without tokens ends where the one before it did."""
        if ends is None:
            return None
        ends = before + ends
        ends = np.unique(ends[ends > self._last_end])
        self._last_end = int(ends.max(initial=self._last_end))
        return ends

    def _read_truth(self, batch: Batch, ends: NDArray[np.int64] | None) -> TokenTruth | None:
        """What is known of the tokens' probabilities under the source, by their bytes."""
        if self._truth is None:
            return None
        assert ends is not None
        return self._truth.read(batch.pieces, ends)

    def _changed(self, kind: type[ChangedError] = ChangedError) -> ChangedError:
        return kind(
            f"the files of {self._split.described} changed while they were read",
            "Start again when nothing writes to them.",
        )
