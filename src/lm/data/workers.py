"""Several processes that do the same task, job by job, each of them on a core of its own.

They are programs of their own rather than forks or `multiprocessing`'s: nothing is pickled, the
user's main module is not imported again, and the threads of torch do no harm.
"""

import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from lm.data.corpus import Document
from lm.data.frames import DONE, REFUSED, Frames, read_frames, write_frames
from lm.data.survey import size
from lm.errors import DataError, OutOfMemoryError

# A process needs some 0.4 s to begin; one that has begun encodes this in a second or two.
WORTHWHILE_BYTES = 1 << 24
# Jobs that wait for each process, so that it never does.
_AHEAD = 2


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worthwhile(documents: Sequence[Document], most: int | None) -> int:
    """How many processes a text deserves; 1 is this one.

    Args:
        most: None is as many as there are cores.
    """
    return max(1, min(cores() if most is None else most, size(documents) // WORTHWHILE_BYTES))


class Workers:
    """Processes that do a task of `lm.data.worker`; a context manager, which ends them."""

    def __init__(self, count: int, task: bytes, setup: Frames) -> None:
        self._ahead = _AHEAD * count
        self._threads = ThreadPoolExecutor(count)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            self._processes.append(_started())
        for process in self._processes:
            assert process.stdin is not None
            write_frames(process.stdin, [task, *setup])
            self._idle.put(process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()  # they keep nothing
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()

    def map(self, jobs: Iterable[Frames]) -> Iterator[Frames]:
        """The replies to the jobs in their order; only a few jobs are held at a time.

        Raises:
            DataError: what a process had to refuse.
            OutOfMemoryError: the system has ended a process.
        """
        waiting: deque[Future[Frames]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(self._exchange, job))
            if len(waiting) >= self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _exchange(self, job: Frames) -> Frames:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_frames(process.stdin, job)
            reply = read_frames(process.stdout)
        except (BrokenPipeError, EOFError):
            reply = None
        finally:
            self._idle.put(process)
        if reply is None:
            raise _ended(process.wait())
        outcome, *content = reply
        if outcome == REFUSED:
            raise DataError(content[0].decode(), content[1].decode())
        if outcome != DONE:
            raise RuntimeError(f"in a process that encodes:\n{content[0].decode()}")
        return content


def _started() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))  # as here, whatever was added
    one_thread = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lm.data.worker"],
        env={**os.environ, "PYTHONPATH": path, **one_thread},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0 if os.name == "posix" else None,  # Ctrl-C is for the one that started it
    )


def _ended(code: int) -> Exception:
    if code == -getattr(signal, "SIGKILL", 9):
        return OutOfMemoryError(
            "a process that prepares the text was killed, as systems do that run out of memory",
            "Set a smaller workers=; what is done is kept and continued.",
        )
    return RuntimeError(f"a process that prepares the text ended with code {code}")
