"""Counting the words of a large text in bounded memory."""

import heapq
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby, islice
from operator import itemgetter
from typing import IO

from lm.errors import DataError, StorageError

# So many distinct words are held in memory (about 150 MB) before they are written away.
HELD_WORDS = 1 << 20
# A vocabulary above this is a mistake rather than a wish; the largest corpora in use have 800,000.
LARGEST_VOCABULARY = 1 << 20


class WordCounter:
    """Exact counts of words: sorted runs on disk, merged at the end, when there are too many.

    A context manager: the runs are deleted when it ends.
    """

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()
        self._runs: list[IO[bytes]] = []
        self._files = ExitStack()

    def __enter__(self) -> "WordCounter":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def update(self, words: Iterable[bytes]) -> None:
        """Count more words; they contain no whitespace."""
        self._counts.update(words)
        self._make_room()

    def add(self, words: Iterable[bytes], counts: Iterable[int]) -> None:
        """Count words that others have counted, each of them once."""
        held, known = self._counts, self._counts.get  # a counter's own default is slow
        for word, count in zip(words, counts, strict=True):
            held[word] = known(word, 0) + count
        self._make_room()

    def _make_room(self) -> None:
        if len(self._counts) >= HELD_WORDS:
            self._spill()

    def _spill(self) -> None:
        try:
            run = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            run.writelines(b"%b %d\n" % item for item in sorted(self._counts.items()))
            run.seek(0)
        except OSError as error:
            raise StorageError(
                f"cannot write word counts to {tempfile.gettempdir()}: {error.strerror}",
                "Free disk space or set TMPDIR to another disk.",
            ) from error
        self._runs.append(run)
        self._counts.clear()

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Each distinct word with its count, once."""
        if not self._runs:
            yield from self._counts.items()
            return
        runs = [_read(run) for run in self._runs]
        merged = heapq.merge(*runs, sorted(self._counts.items()))
        for word, same in groupby(merged, key=itemgetter(0)):
            yield word, sum(count for _, count in same)

    def ranked(self, min_count: int, max_size: int | None, always: dict[bytes, int]) -> list[bytes]:
        """The vocabulary by falling count, ties by bytes.

        Args:
            min_count: rarer words are left out.
            max_size: at most so many words, `always` included.
            always: words that are in whatever their count, with what to add to it.

        Raises:
            DataError: without `max_size`, more than `LARGEST_VOCABULARY` words.
        """
        fixed = dict(always)
        counted = self._fill(fixed)
        kept = ((-count, word) for word, count in counted if count >= min_count)
        if max_size is not None:
            best = heapq.nsmallest(max(max_size - len(always), 0), kept)
        else:
            best = list(islice(kept, LARGEST_VOCABULARY + 1))
            if len(best) > LARGEST_VOCABULARY:
                raise DataError(
                    f"the training split has more than {LARGEST_VOCABULARY} distinct words",
                    "Set tokenizer.max_size or a higher tokenizer.min_count.",
                )
        return [
            word for _, word in sorted(best + [(-count, word) for word, count in fixed.items()])
        ]

    def _fill(self, fixed: dict[bytes, int]) -> Iterator[tuple[bytes, int]]:
        """The items outside `fixed`; the others add to their counts there on the way."""
        for word, count in self.items():
            if word in fixed:
                fixed[word] += count
            else:
                yield word, count


def _read(run: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    for line in run:
        word, count = line.split(b" ")
        yield word, int(count)
