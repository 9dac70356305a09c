"""Real `lm` processes that start in milliseconds, so that they can be killed by the hundred.

A server process imports `lm` once (`warmed`) and forks for each command. What is killed is a
process of its own like any other; only the seconds that importing and composing take are saved.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

_server = get_context("forkserver")
_server.set_forkserver_preload(["warmed"])

TIMEOUT = 120.0
BROKEN_BUILD = "LM_TEST_BROKEN_BUILD"
"""Names an environment variable: the build of `broken_builds` that a process is to be."""


class Child:
    """A process that calls a function, with its output in a file.

    Args:
        log: receives standard output and error.
    """

    def __init__(self, log: Path, function: Callable[..., int], *arguments: Any) -> None:
        self.log = log
        self._process = _server.Process(
            target=_call, args=(log, Path.cwd(), dict(os.environ), function, arguments), daemon=True
        )
        with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            self._process.start()  # and the server, which is not told where its modules are

    @classmethod
    def lm(cls, *arguments: str, log: Path) -> "Child":
        """`lm …` in the working directory."""
        return cls(log, run_lm, list(arguments))

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to a process that has ended, nothing happens."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit code, or minus the signal that ended it.

        Raises:
            TimeoutError: it hangs; it is killed then.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"still running after {timeout:.0f} s: {self.said()[-2000:]}")
        return self._process.exitcode

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def run_lm(arguments: list[str]) -> int:
    from lm.cli import main

    return main(arguments)


def _call(
    log: Path,
    folder: Path,
    environment: dict[str, str],
    function: Callable[..., int],
    arguments: tuple[Any, ...],
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if BROKEN_BUILD in environment:
        import broken_builds  # with pytest, which takes its time to import

        broken_builds.take_out_here(environment[BROKEN_BUILD])
    sys.exit(function(*arguments))


def until(condition: Callable[[], object], child: Child, timeout: float = TIMEOUT) -> bool:
    """Wait for something that a process does; false where it ended before.

    Raises:
        TimeoutError: neither happens.
    """
    limit = time.monotonic() + timeout
    while not condition():
        if not child.running:
            return bool(condition())
        if time.monotonic() > limit:
            raise TimeoutError(f"waited for {timeout:.0f} s: {child.said()[-2000:]}")
        time.sleep(0.002)
    return True
