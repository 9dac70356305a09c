"""Signals: the first one asks the run to save and stop, a second one leaves at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lm.errors import Stopped
from lm.runtime.processes import ALONE, Processes

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class StopFlag:
    """Set by a signal and read at step boundaries, after the step was saved if it had to be."""

    def __init__(self) -> None:
        self._signal: str | None = None
        self._agreed: str | None = None
        self._processes = ALONE
        self._deferring = False

    @property
    def requested(self) -> str | None:
        """The signal that asks to stop, if one does; of several processes, as of `agree`."""
        return self._signal if self._processes.alone else self._agreed

    def share(self, processes: Processes) -> None:
        """From now on a signal to one of the processes stops all of them at the same step."""
        self._processes = processes
        if not processes.alone:
            processes.asked_to_stop = lambda: self._signal is not None

    def agree(self, *values: float) -> list[float]:
        """Hear of the other processes' signals; all of them call this at the same moment.

        Args:
            values: what else they have to see alike; the largest of each counts.
        """
        own = 0 if self._signal is None else int(signal.Signals[self._signal])
        number, *agreed = self._processes.largest([own, *values])
        self._agreed = signal.Signals(int(number)).name if number else None
        return agreed

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; where there is nothing to save yet, leave; on the second, too.

        Raises:
            Stopped: training has not begun.
            KeyboardInterrupt: on the second signal.
        """
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name
        if not self._deferring:
            raise Stopped(
                f"stopped by {self._signal} before training began",
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
