"""A run's directory: created for one run alone, owned while it trains, and self-describing.

runs/<name>/<date>_<time>_<id>/
    config.yaml  overrides.yaml  environment.json  train.log
    metrics.jsonl  tensorboard/  checkpoints/  summary.json
"""

import json
import logging
import os
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lm.checkpoint import CheckpointFolder
from lm.errors import CheckpointError, StorageError
from lm.runtime.files import is_running, storage_errors, write_atomically

_MAX_DIFF = 1 << 20


class RunDirectory:
    """One run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints")

    @classmethod
    def create(cls, parent: Path, job: Path | None = None) -> "RunDirectory":
        """A directory that did not exist before: `job`, or a fresh name below `parent`.

        Raises:
            StorageError: the place is read-only, full, or the job's directory exists.
        """
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = job or parent / f"{stamp}_{secrets.token_hex(3)}"
        with storage_errors(f"create {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError as error:
                raise StorageError(
                    f"{path} exists", "Continue it with resume=, or choose another name=."
                ) from error
        run = cls(path)
        run.checkpoints.open_for_writing()
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """An existing run's directory.

        Raises:
            CheckpointError: there is no run.
        """
        if not (path / "checkpoints").is_dir():
            raise CheckpointError(f"no run at {path}", "Give the run directory that training made.")
        return cls(path)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the directory's lock.

        Raises:
            StorageError: a living process owns it; names the owner.
        """
        lock = self.path / "lock"
        me = {"host": socket.gethostname(), "pid": os.getpid()}
        with storage_errors(f"lock {self.path}"):
            try:
                self._take(lock, me)
            except FileExistsError:
                owner = self._owner(lock)
                if owner is not None and is_running(owner["pid"], owner["host"]):
                    raise StorageError(
                        f"{self.path} is in use by process {owner['pid']} on {owner['host']}",
                        "Wait for that run, stop it, or start a new one.",
                    ) from None
                lock.unlink(missing_ok=True)
                self._take(lock, me)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    @staticmethod
    def _take(lock: Path, me: dict[str, Any]) -> None:
        with lock.open("x", encoding="utf-8") as file:
            json.dump(me, file)

    @staticmethod
    def _owner(lock: Path) -> dict[str, Any] | None:
        try:
            owner = json.loads(lock.read_text(encoding="utf-8"))
            return {"pid": int(owner["pid"]), "host": str(owner["host"])}
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def describe(self, config: str, overrides: list[str], machine: dict[str, Any]) -> None:
        """Write what the run was started with."""
        with storage_errors(f"write {self.path}"):
            write_atomically(self.path / "config.yaml", config.encode())
            listed = "".join(f"- {json.dumps(item, ensure_ascii=False)}\n" for item in overrides)
            write_atomically(self.path / "overrides.yaml", (listed or "[]\n").encode())
            facts = json.dumps({**machine, **_environment()}, indent=1)
            write_atomically(self.path / "environment.json", facts.encode())

    def summarise(self, status: str, **facts: object) -> None:
        """Replace `summary.json`: status is running, done, stopped or failed."""
        content = json.dumps({"status": status, **facts}, indent=1)
        with storage_errors(f"write {self.path / 'summary.json'}"):
            write_atomically(self.path / "summary.json", content.encode())

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Send `lm`'s log to `train.log`, and past the progress bar to the terminal."""
        logger = logging.getLogger("lm")
        file = logging.FileHandler(self.path / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
        try:
            yield
        finally:
            logger.removeHandler(file)
            file.close()


class ConsoleHandler(logging.Handler):
    """Log lines on standard error that do not tear the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _environment() -> dict[str, Any]:
    names = ("torch", "hydra-core", "omegaconf", "numpy", "safetensors", "tokenizers")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("lm", *names)},
        "git": _git(),
    }


def _git() -> dict[str, str] | None:
    """Commit and uncommitted changes of the checkout that `lm` runs from; None when installed."""
    source = Path(__file__).resolve().parent
    if not (source.parents[1] / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "diff": git("diff", "HEAD")[:_MAX_DIFF]}
    except OSError:  # no git on this machine
        return None
