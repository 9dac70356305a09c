"""When a checkpoint is written: at once, or by a thread while training goes on.

In the background no error is lost and no order changed: one checkpoint is under way at a time, the
next one waits for it, and what went wrong is raised in training, at the latest when it ends.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lm.checkpoint import Checkpoint, CheckpointFolder, detached

log = logging.getLogger(__name__)


class Saver:
    """Writes a run's checkpoints.

    Attributes:
        seconds: how long training stood still for it, in this session.
    """

    def __init__(self, folder: CheckpointFolder, *, keep: int, background: bool) -> None:
        self._folder, self._keep, self._background = folder, keep, background
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.seconds = 0.0

    def save(self, step: int, checkpoint: Checkpoint, *, best: bool) -> None:
        """Write a checkpoint, or begin to; what it holds may change once this returns.

        Raises:
            StorageError, NumericError: of this one or, in the background, of the one before.
        """
        started = time.perf_counter()
        try:
            self.wait()
            if self._background:
                self._begin(step, detached(checkpoint), best)
            else:
                self._folder.save(step, checkpoint, best=best, keep=self._keep)
        finally:
            self.seconds += time.perf_counter() - started

    def check(self) -> None:
        """Raise what a checkpoint that was under way met; does not wait for it."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint that is under way is written, and raise what it met."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Let no checkpoint be under way after the block, however it ends.

        Only a KeyboardInterrupt, the second signal, waits for nothing: the checkpoint before is
        whole.
        """
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            try:
                self.wait()
            except Exception as second:  # the first one is what ends the run
                log.error("a checkpoint was not written: %s", second)
            raise
        self.wait()

    def _begin(self, step: int, checkpoint: Checkpoint, best: bool) -> None:
        def write() -> None:
            try:
                self._folder.save(step, checkpoint, best=best, keep=self._keep)
            except BaseException as error:  # raised again by `wait`
                self._error = error

        self._thread = threading.Thread(target=write, name="lm-saver", daemon=True)
        self._thread.start()
