"""A process that does one task for another, job by job: `python -m lm.data.worker`.

Started by `lm.data.workers`, which talks to it through its standard input and output in frames of
bytes. It ends when its input does, so it never outlives the one that started it.
"""

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable

import numpy as np

from lm.data.batch import BatchEncoder
from lm.data.frames import DONE, FAILED, REFUSED, Frames, read_frames, write_frames
from lm.data.tokenizers.word_counts import split_words
from lm.errors import LmError

Task = Callable[[Frames], Frames]


def _count_words(job: Frames) -> Frames:
    counts = Counter(split_words(job[0]))
    return [b" ".join(counts), np.fromiter(counts.values(), "<i8", len(counts)).tobytes()]


TASKS: dict[bytes, Callable[[Frames], Task]] = {
    b"encode": lambda setup: BatchEncoder.of(setup).serve,
    b"count words": lambda setup: _count_words,
}


def main() -> None:
    """Serve until the input ends."""
    source = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints is no reply
        first = read_frames(source)
        if first is None:
            return
        name, *setup = first
        work = TASKS[name](setup)
        while (job := read_frames(source)) is not None:
            write_frames(replies, _done(work, job))


def _done(work: Task, job: Frames) -> Frames:
    try:
        return [DONE, *work(job)]
    except LmError as error:
        return [REFUSED, error.cause.encode(), error.remedy.encode()]
    except Exception:
        return [FAILED, traceback.format_exc().encode()]


if __name__ == "__main__":
    main()
