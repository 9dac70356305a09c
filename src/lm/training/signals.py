"""Signals: the first one asks the run to save and stop, a second one leaves at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lm.errors import Stopped

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class StopFlag:
    """Set by a signal and read at step boundaries."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._deferring = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; where there is nothing to save yet, leave; on the second, too.

        Raises:
            Stopped: training has not begun.
            KeyboardInterrupt: on the second signal.
        """
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
        if not self._deferring:
            raise Stopped(
                f"stopped by {self.requested} before training began",
                "Nothing is lost: the same command starts again.",
            )

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Inside, whoever trains reads the flag and saves first."""
        self._deferring = True
        yield

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Install the handlers for the duration of a run; outside the main thread, none."""
        previous = {}
        try:
            for number in _SIGNALS:
                previous[number] = signal.signal(number, self.handle)
        except ValueError:  # not the main thread: a notebook's executor, a launcher's worker
            pass
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
