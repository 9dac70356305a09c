"""The processes of a program, started from a launcher under the program's interpreter."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1]
TIMEOUT = 120.0
_numbers = itertools.count()


class Process:
    """A started program.

    Args:
        status: where the launcher writes how it ended.
        log: its output.
        steps: where the number of steps that it has begun is written.
    """

    def __init__(self, status: Path, log: Path, steps: Path) -> None:
        self.status, self.log, self._steps = status, log, steps
        self._pid = status.with_name(status.name + ".pid")
        until(self._pid.exists)

    @property
    def running(self) -> bool:
        return not self.status.exists()

    @property
    def steps(self) -> int:
        """Steps begun, in this process."""
        return int(self._steps.read_text() or 0) if self._steps.exists() else 0

    def reach(self, steps: int) -> None:
        """Wait until that step has begun, or the end."""
        until(lambda: self.steps >= steps or not self.running)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to a process that has ended, nothing happens."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._pid.read_text()), number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit code, or minus the signal that ended it.

        Raises:
            TimeoutError: it hangs; it is killed then.
        """
        try:
            until(self.status.exists, timeout)
        except TimeoutError:
            self.send(signal.SIGKILL)
            raise
        return int(self.status.read_text())

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said()


class Host:
    """An interpreter that has imported what a program needs.

    Args:
        python: the interpreter.
        modules: what to import.
        paths: of further packages.
        folder: for status files and logs.
    """

    def __init__(
        self, python: str, modules: Sequence[str], paths: Sequence[Path], folder: Path
    ) -> None:
        self.python, self.folder = python, folder
        folder.mkdir(parents=True)
        places = os.pathsep.join(map(str, [SCRIPTS, *paths]))
        # One thread: what is compared must not depend on how sums are split.
        environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [python, "-m", "peers.launcher", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._server.stdout is not None
        if self._server.stdout.readline() != "ready\n":
            raise RuntimeError(f"{python} cannot import {', '.join(modules)}")

    def start(
        self,
        target: str | Path,
        arguments: Sequence[str],
        folder: Path,
        *,
        sabotage: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> Process:
        """Start a script or module in `folder`."""
        status = self.folder / str(next(_numbers))
        steps, log = status.with_suffix(".steps"), status.with_suffix(".log")
        order = {
            "target": str(target), "arguments": [str(item) for item in arguments],
            "folder": str(folder), "status": str(status), "log": str(log),
            "sabotage": {"steps": str(steps), **(sabotage or {})},
            "environment": environment or {},
        }  # fmt: skip
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Process(status, log, steps)

    def versions(self, *names: str) -> dict[str, str]:
        """Of packages that are installed there."""
        code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
        found = subprocess.check_output([self.python, "-c", code, *names], text=True).split()
        return dict(zip(names, found, strict=True))

    def close(self) -> None:
        """End the launcher; what it started goes on."""
        with self._server:  # closes its input, which ends it
            pass


@contextmanager
def hosting(*hosts: Host) -> Iterator[None]:
    """Close the launchers at the end."""
    try:
        yield
    finally:
        for host in hosts:
            host.close()


def until(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it did not happen.
    """
    limit = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"nothing within {timeout:.0f} s")
        time.sleep(0.002)
