"""The words of a text by how often they occur, counted by several processes if it is long."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lm.data.corpus import Document
from lm.data.pieces import Cut, pieces
from lm.data.tokenizers.counting import WordCounter
from lm.data.workers import Workers, worthwhile

EOS = b"<eos>"
# The longer a text, the fewer different words for each of its own.
_JOB_BYTES = 1 << 22


def split_words(text: bytes) -> list[bytes]:
    """The words of a text, with `EOS` for each newline."""
    return text.replace(b"\n", b" %b " % EOS).split()


def ranked_words(
    documents: Sequence[Document],
    cut: Cut,
    min_count: int,
    max_size: int | None,
    always: Sequence[bytes],
    workers: int | None = 1,
) -> list[bytes]:
    """The vocabulary of a text, see `WordCounter.ranked`."""
    with WordCounter() as counter:
        texts = (piece.text for piece in pieces(documents, cut, "count words"))
        processes = worthwhile(documents, workers)
        if processes == 1:
            for text in texts:
                counter.update(split_words(text))
        else:
            with Workers(processes, b"count words", []) as counting:
                for words, counts in counting.map(_jobs(texts)):
                    counter.add(words.split(), np.frombuffer(counts, "<i8").tolist())
        return counter.ranked(min_count, max_size, dict.fromkeys(always, 0))


def _jobs(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    total = 0
    for text in texts:
        held.append(text)
        total += len(text)
        if total >= _JOB_BYTES:
            yield [b" ".join(held)]  # each ends behind a word
            held, total = [], 0
    if held:
        yield [b" ".join(held)]
