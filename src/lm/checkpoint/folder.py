"""A run's `checkpoints/` folder.

checkpoints/step-000001234/             checkpoints, as `lm.checkpoint.format` has them
checkpoints/last, checkpoints/best      text files that name one of them
"""

import logging
import re
from pathlib import Path

from lm.checkpoint.format import MANIFEST, Checkpoint, read, verifies, write
from lm.checkpoint.newest import listed, run_meant
from lm.errors import CheckpointError
from lm.runtime.files import (
    remove_folder,
    restore_interrupted,
    storage_errors,
    write_atomically,
)
from lm.runtime.untrusted import read_text

_MAX_POINTER = 1 << 10  # in bytes; what is larger is an attack
_NAME = re.compile(r"step-\d{9,}")
_NUMBER = re.compile(r"(?:step-)?(\d+)")

log = logging.getLogger(__name__)


class CheckpointFolder:
    """Its checkpoints, with pointers and retention."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open_for_writing(self) -> None:
        """Create the folder and clean up after a process that died while saving."""
        with storage_errors(f"create {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            restore_interrupted(self.path)

    def of_step(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.path / f"step-{step:09d}"

    def save(self, step: int, checkpoint: Checkpoint, *, best: bool, keep: int) -> Path:
        """Write `step-…`, move the pointers, and drop all but the newest `keep` and the best."""
        folder = self.of_step(step)
        write(folder, checkpoint)
        with storage_errors(f"save {folder}"):
            for pointer in ("last", "best") if best else ("last",):
                write_atomically(self.path / pointer, folder.name.encode())
        self._retire(folder, keep)
        return folder

    def _retire(self, newest: Path, keep: int) -> None:
        """Delete what is older than the newest `keep` that verify, `newest` among them.

        Each is read again first: one that was damaged since is no reason to delete a good one.
        """
        # A later step can only be one that did not verify when this run was resumed: it must
        # not count, or it would push out the good ones.
        older = [folder for folder in self.newest_first() if _step(folder) < _step(newest)]
        verified = 1  # the newest was hashed from what was written
        best = self._pointer("best")
        for folder in older:
            if verified >= keep:
                if folder.name != best:
                    remove_folder(folder)
            elif verifies(folder):
                verified += 1

    def newest_first(self) -> list[Path]:
        """The checkpoints by step, whatever the clock says."""
        if not self.path.is_dir():
            return []
        folders = [path for path in self.path.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(folders, key=_step, reverse=True)

    def _pointer(self, name: str) -> str | None:
        try:
            target = read_text(self.path / name, _MAX_POINTER).strip()
        except CheckpointError:
            return None
        return target if _NAME.fullmatch(target) else None

    def find(self, which: str) -> Path:
        """The folder that `last`, `best` or `step-…` names; not verified yet."""
        number = _NUMBER.fullmatch(which)
        name = self._pointer(which) if which in ("last", "best") else which
        if number:
            name = self.of_step(int(number[1])).name
        if name is None and self.newest_first():
            name = self.newest_first()[0].name
        if name is None or not (self.path / name).is_dir():
            there = ", ".join(folder.name for folder in self.newest_first()) or "none"
            raise CheckpointError(
                f"no checkpoint {which!r} in {self.path}; there: {there}",
                "Set checkpoint=last, best or one of those.",
            )
        return self.path / name

    def newest_good(self) -> tuple[Path, Checkpoint]:
        """The newest checkpoint that verifies; says which ones it passed over.

        Raises:
            CheckpointError: there is none. Never a silent fresh start.
        """
        causes = []
        for folder in self.newest_first():
            try:
                return folder, read(folder)
            except CheckpointError as error:
                log.warning("%s; trying the one before", error.cause)
                causes.append(error.cause)
        raise CheckpointError(
            f"no good checkpoint in {self.path}{': ' if causes else ''}{'; '.join(causes[:1])}",
            "Restore the folder from a backup, or train anew.",
        )


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def read_any(path: Path, which: str) -> tuple[Path, Checkpoint]:
    """The checkpoint that a run, a folder of runs or a checkpoint folder means, verified.

    Of a folder of runs, such as `runs/<name>`, it is the newest: see `run_meant`.
    Where a run's `best` or `last` is damaged, the newest good one takes its place, and the log
    says so; a checkpoint named by its step has no substitute.

    Raises:
        CheckpointError: there is none, it is not clear which, or the one named is damaged.
    """
    if (path / MANIFEST).is_file():
        return path, read(path)
    folder = CheckpointFolder(run_meant(path) / "checkpoints")
    if not folder.newest_first():
        inside = sorted({found.parents[1] for found in path.glob("*/*/checkpoints")})
        hint = listed(inside) if inside else "Give a run directory, or a folder of runs."
        raise CheckpointError(f"no run or checkpoint at {path}", hint)
    try:
        found = folder.find(which)
        return found, read(found)
    except CheckpointError as error:
        if which not in ("best", "last"):
            raise
        log.warning("%s; taking the newest good checkpoint instead", error.cause)
        return folder.newest_good()
