"""Checkpoints: atomic, verified, free of pickle, and enough to continue to the last bit.

checkpoints/step-000001234/
    model.safetensors       parameters by name
    training.safetensors    optimiser, recurrent state, running sums
    state.json              step, epoch, position, schedule, best, counters, machine
    config.yaml             the run's configuration, without interpolations
    tokenizer.json
    manifest.json           SHA-256 and size of every file; written last
checkpoints/last, checkpoints/best      text files that name one of the folders
"""

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm.errors import CheckpointError, NumericError
from lm.runtime.files import (
    folder_atomically,
    restore_interrupted,
    sha256,
    storage_errors,
    sync,
    write_atomically,
)

FORMAT = 1
MANIFEST = "manifest.json"
_MAX_JSON = 256 * 2**20  # a tokenizer of a million words has about 30 MB
_NAME = re.compile(r"step-\d{9,}")
_NUMBER = re.compile(r"(?:step-)?(\d+)")
_REMEDY = "Use another checkpoint of the run (checkpoint=last, best or step-…)."

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Checkpoint:
    """What a checkpoint holds, in memory."""

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]
    config: str
    tokenizer: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `folder` is either whole or as before.

    Raises:
        NumericError: a weight is not finite; such a checkpoint would push out a good one.
        StorageError: disk full or read-only.
    """
    for name, tensor in checkpoint.model.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NumericError(
                f"refused to save {folder.name}: {name} is not finite",
                "Lower optim.lr or set trainer.clip.norm, and resume from the last checkpoint.",
            )
    with storage_errors(f"save {folder}"), folder_atomically(folder) as new:
        save_file(_storable(checkpoint.model), new / "model.safetensors")
        save_file(_storable(checkpoint.training), new / "training.safetensors")
        (new / "state.json").write_text(json.dumps(checkpoint.state, indent=1), encoding="utf-8")
        (new / "config.yaml").write_text(checkpoint.config, encoding="utf-8")
        (new / "tokenizer.json").write_text(json.dumps(checkpoint.tokenizer), encoding="utf-8")
        files = {
            path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in sorted(new.iterdir())
        }
        manifest = {"format": FORMAT, "files": files}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in new.iterdir():
            sync(path)


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, each with a storage of its own: what safetensors writes."""
    return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        CheckpointError: a file is missing, truncated or altered, or the format is newer.
    """
    verify(folder)
    try:
        return Checkpoint(
            model=load_file(folder / "model.safetensors"),
            training=load_file(folder / "training.safetensors"),
            state=_read_json(folder / "state.json"),
            config=(folder / "config.yaml").read_text(encoding="utf-8"),
            tokenizer=_read_json(folder / "tokenizer.json"),
        )
    except (OSError, ValueError, SafetensorError, RecursionError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}", _REMEDY) from error


def verify(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: saying which file differs and how.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}", "Check the path.")
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest.get('format')!r}, this lm reads {FORMAT}",
            "Use the version of lm that wrote it.",
        )
    files = manifest.get("files")
    wanted = {"model.safetensors", "training.safetensors", "state.json", "config.yaml"}
    if not isinstance(files, dict) or not wanted | {"tokenizer.json"} <= files.keys():
        raise CheckpointError(f"{folder / MANIFEST} does not list the files", _REMEDY)
    for name, entry in files.items():
        path = folder / name
        if Path(name).name != name or not isinstance(entry, dict):
            raise CheckpointError(f"{folder / MANIFEST} names {name!r}", _REMEDY)
        if not path.is_file() or path.is_symlink():
            raise CheckpointError(f"{path} is missing", _REMEDY)
        if path.stat().st_size != entry.get("bytes") or sha256(path) != entry.get("sha256"):
            raise CheckpointError(f"{path} is damaged: it differs from the manifest", _REMEDY)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes", _REMEDY)
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", _REMEDY) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object", _REMEDY)
    return data


class CheckpointFolder:
    """A run's `checkpoints/` folder with its pointers and retention."""

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
        # A later step can only be one that did not verify when this run was resumed: it must
        # not count as the newest, or it would push out the good ones.
        older = [old for old in self.newest_first() if _step(old) <= step]
        kept = {self._pointer("best"), *(old.name for old in older[:keep])}
        for old in older:
            if old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)
        return folder

    def newest_first(self) -> list[Path]:
        """The checkpoints by step, whatever the clock says."""
        if not self.path.is_dir():
            return []
        folders = [path for path in self.path.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(folders, key=_step, reverse=True)

    def _pointer(self, name: str) -> str | None:
        try:
            target = (self.path / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
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
        for folder in self.newest_first():
            try:
                return folder, read(folder)
            except CheckpointError as error:
                log.warning("%s; trying the one before", error.cause)
        raise CheckpointError(
            f"no good checkpoint in {self.path}",
            "Start again without resume=, or restore the folder from a backup.",
        )


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def read_any(path: Path, which: str) -> tuple[Path, Checkpoint]:
    """The checkpoint that a run directory or a checkpoint folder means, verified.

    Where a run's `best` or `last` is damaged, the newest good one takes its place, and the log
    says so; a checkpoint named by its step has no substitute.

    Raises:
        CheckpointError: there is none, or the one named is damaged.
    """
    if (path / MANIFEST).is_file():
        return path, read(path)
    folder = CheckpointFolder(path / "checkpoints")
    if not folder.newest_first():
        runs = sorted(str(found.parent) for found in path.glob("*/checkpoints"))
        hint = f"Runs inside: {', '.join(runs[-3:])}." if runs else "Give a run directory."
        raise CheckpointError(f"no run or checkpoint at {path}", hint)
    try:
        found = folder.find(which)
        return found, read(found)
    except CheckpointError as error:
        if which not in ("best", "last"):
            raise
        log.warning("%s; taking the newest good checkpoint instead", error.cause)
        return folder.newest_good()
