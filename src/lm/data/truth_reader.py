"""Reading what is known of a text, byte by byte, and putting it together by token."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from lm.data.corpus import Document
from lm.data.pieces import Piece
from lm.data.truth import MARKS_DTYPE, NATS_DTYPE, TokenTruth
from lm.errors import DataError

_CHUNK_ITEMS = 1 << 20
_REMEDY = "Delete its folder; the text is drawn again when needed."


class TruthReader:
    """Walks along the documents of a split as their bytes are encoded."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = iter(documents)
        self._next_document()

    def _next_document(self) -> None:
        document = next(self._documents, None)
        if document is not None:
            assert document.truth is not None, "a split is of one source"
            self._truth, self._position = document.truth, document.start

    def read(self, pieces: Sequence[Piece], ends: Int[ndarray, " N"]) -> TokenTruth:
        """Of the tokens of the next pieces of text.

        Args:
            ends: offset behind each token, where the next one begins, in all pieces together.

        Raises:
            DataError: the files are shorter than the text.
        """
        nats, marks = [], []
        for piece in pieces:
            truth, start, length = self._truth, self._position, len(piece.text)
            nats.append(_items(truth.nats, NATS_DTYPE, start, length))
            if truth.recalled is not None:
                marks.append(_items(truth.recalled, MARKS_DTYPE, start, length))
            self._position += length
            if piece.last:
                self._next_document()
        assert len(marks) in (0, len(nats)), "a split is of one source"
        recalled = _by_token(np.maximum, marks, ends) if marks else None
        return TokenTruth(_by_token(np.add, nats, ends), recalled)


def _by_token(reduce: np.ufunc, items: list[ndarray], ends: Int[ndarray, " N"]) -> ndarray:
    """Items of bytes put together by token; bytes behind the last one belong to none."""
    whole = np.concatenate(items)
    if not len(ends):
        return whole[:0]
    found: ndarray = reduce.reduceat(whole[: ends[-1]], np.concatenate([[0], ends[:-1]]))
    return found


def content_of(documents: Sequence[Document]) -> str | None:
    """Hash of what is known of a split's bytes; None where nothing is."""
    known = [document for document in documents if document.truth is not None]
    if not known:
        return None
    whole = hashlib.sha256()
    for document in known:
        for chunk in _chunks(document):
            whole.update(chunk)
    return whole.hexdigest()


def _chunks(document: Document) -> Iterator[bytes]:
    """The items of a document's bytes, as bytes: of each file in turn."""
    truth, stop = document.truth, document.stop
    assert truth is not None
    end = document.path.stat().st_size if stop is None else stop
    for path, dtype in ((truth.nats, NATS_DTYPE), (truth.recalled, MARKS_DTYPE)):
        if path is None:
            continue
        for start in range(document.start, end, _CHUNK_ITEMS):
            yield _items(path, dtype, start, min(_CHUNK_ITEMS, end - start)).tobytes()


def _items(path: Path, dtype: str, start: int, count: int) -> ndarray:
    """Consecutive items of a file."""
    width = np.dtype(dtype).itemsize
    try:
        found = np.fromfile(path, dtype, count, offset=start * width)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", _REMEDY) from error
    if len(found) < count:
        raise DataError(f"{path} is shorter than the text that it belongs to", _REMEDY)
    return found
