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
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lm.checkpoint import CheckpointFolder, run_meant
from lm.errors import CheckpointError, LmError, Stopped, StorageError
from lm.runtime.device import cpu_name
from lm.runtime.files import restore_interrupted, storage_errors, write_atomically
from lm.runtime.ownership import living_owner, owning

_MAX_DIFF = 1 << 20

log = logging.getLogger(__name__)


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
                owner = living_owner(path / "lock")
                state = "exists" if owner is None else f"is in use by {owner}"
                raise StorageError(
                    f"{path} {state}", "Continue it with resume=, or choose another name=."
                ) from error
        return cls(path)

    @staticmethod
    def check_place(parent: Path, field: str = "runs") -> None:
        """Find out before any work whether files can be written below `parent`, by writing one.

        Args:
            field: what the user can set to choose another place.

        Raises:
            StorageError: it is a file, read-only or full.
        """
        place = _nearest(parent)
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"x")
        except OSError as error:
            raise StorageError(
                f"cannot create {parent}: {place} is not a writable folder ({error.strerror})",
                f"Choose another folder with {field}=.",
            ) from error

    @staticmethod
    def check_room(parent: Path, weights: int, keep: int) -> None:
        """Find out before training whether checkpoints will fit.

        Args:
            weights: bytes of the parameters, which every checkpoint has at least.
            keep: how many are kept besides the best and the one that is being written.

        Raises:
            StorageError: not even one fits.
        """
        free = shutil.disk_usage(_nearest(parent)).free
        if free < weights:
            raise StorageError(
                f"a checkpoint has at least {weights:,} bytes, {parent} has room for {free:,}",
                "Free some space on that disk, or choose another folder with runs=.",
            )
        # Most optimisers keep one or two numbers a parameter.
        likely = 3 * weights * (keep + 2)
        if free < likely:
            log.warning(
                "checkpoints may take %s bytes in all, %s has room for %s",
                f"{likely:,}", parent, f"{free:,}",
            )  # fmt: skip

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """An existing run's directory; of a folder of runs, such as `runs/<name>`, the newest.

        Raises:
            CheckpointError: there is no run, or it is not clear which.
        """
        path = run_meant(path)
        if not (path / "checkpoints").is_dir():
            raise CheckpointError(f"no run at {path}", "Give the run directory that training made.")
        return cls(path)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the directory's lock.

        Raises:
            StorageError: a living process has it, which is named.
        """
        with owning(self.path / "lock"):
            # Whoever died while writing is gone now that the lock is ours.
            restore_interrupted(self.path)
            self.checkpoints.open_for_writing()
            yield

    def describe(self, config: str, overrides: list[str], machine: dict[str, Any]) -> None:
        """Write what the run was started with."""
        with storage_errors(f"write {self.path}"):
            write_atomically(self.path / "config.yaml", config.encode())
            listed = "".join(f"- {json.dumps(item, ensure_ascii=False)}\n" for item in overrides)
            write_atomically(self.path / "overrides.yaml", (listed or "[]\n").encode())
        self.note_environment({**machine, **_environment()})

    def note_environment(self, facts: Mapping[str, object]) -> None:
        """Write where the run takes place, or the part of it that is known."""
        with storage_errors(f"write {self.path}"):
            content = json.dumps(facts, indent=1)
            write_atomically(self.path / "environment.json", content.encode())

    def forget_metrics(self) -> None:
        """Take away what was logged by a run that begins anew here."""
        with storage_errors(f"write {self.path}"):
            (self.path / "metrics.jsonl").unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

    def summarise(self, status: str, **facts: object) -> None:
        """Replace `summary.json`: status is running, done, stopped or failed."""
        content = json.dumps({"status": status, **facts}, indent=1)
        with storage_errors(f"write {self.path / 'summary.json'}"):
            write_atomically(self.path / "summary.json", content.encode())

    @contextmanager
    def summarised(self, standing: Callable[[], dict[str, object]]) -> Iterator[None]:
        """Keep `summary.json` true until the run is done, whatever happens.

        Args:
            standing: how far the run has come.
        """
        self.summarise("running")
        try:
            yield
        except Stopped as stop:
            self.summarise("stopped", reason=stop.cause, **standing())
            raise
        except BaseException as error:
            cause = error.cause if isinstance(error, LmError) else repr(error)
            # The disk may be what failed; then its error must not hide the one under way.
            try:
                self.summarise("failed", reason=cause, **standing())
            except (LmError, OSError) as second:
                log.warning("summary.json was not written: %s", second)
            raise

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Send `lm`'s log to `train.log`, and past the progress bar to the terminal."""
        logger = logging.getLogger("lm")
        with storage_errors(f"write {self.path / 'train.log'}"):
            file = _LogFile(self.path / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
        try:
            yield
        finally:
            logger.removeHandler(file)
            file.close()


def begun_by(launch: str, folders: Iterable[Path]) -> Path | None:
    """The newest of some run directories that a launch began, as `environment.json` says."""
    found = [folder for folder in folders if _launch_of(folder) == launch]
    return max(found, key=lambda folder: folder.name, default=None)


def _launch_of(folder: Path) -> object:
    try:
        facts = json.loads((folder / "environment.json").read_bytes())
    except (OSError, ValueError):
        return None
    return facts.get("launch") if isinstance(facts, dict) else None


class _LogFile(logging.FileHandler):
    """A log that a full disk does not bring down; the terminal has its lines too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the library's name
        """Say nothing of a line that the disk did not take."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


class ConsoleHandler(logging.Handler):
    """Log lines on standard error that do not tear the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _environment() -> dict[str, Any]:
    names = ("torch", "hydra-core", "omegaconf", "numpy", "safetensors", "tokenizers")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
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
