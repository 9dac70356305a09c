"""One checkpoint on disk: written whole or not at all, and verified before it is read.

step-000001234/
    model.safetensors       parameters by name
    training.safetensors    optimiser, recurrent state, running sums
    state.json              step, epoch, position, schedule, best, counters, machine
    config.yaml             the run's configuration, without interpolations
    tokenizer.json
    manifest.json           SHA-256 and size of every file; written last
"""

import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm.checkpoint.tensors import Rows, take_part, write_tensors
from lm.errors import CheckpointError, NumericError
from lm.runtime.files import folder_atomically, sha256, storage_errors, sync
from lm.runtime.untrusted import REMEDY, contained, read_json_object, read_text
from lm.runtime.untrusted_tensors import read_tensors

FORMAT = 1
MANIFEST = "manifest.json"
FILES = frozenset(
    {"model.safetensors", "training.safetensors", "state.json", "config.yaml", "tokenizer.json"}
)
"""What a checkpoint consists of, besides its manifest."""
# In bytes. JSON may take twenty times as much in memory: what is larger is an attack.
_MAX_MANIFEST = 1 << 20
_MAX_STATE = 16 << 20
_MAX_CONFIG = 1 << 20
_MAX_TOKENIZER = 128 << 20  # a million words have 10 MB in English, 70 MB in Cyrillic

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Checkpoint:
    """What a checkpoint holds, in memory.

    Attributes:
        rows: of tensors in `model` and `training` of which other processes have other rows, what
            gives all of them.
    """

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]
    config: str
    tokenizer: dict[str, Any]
    rows: Mapping[str, Rows] = field(default_factory=dict)

    def take_part(self) -> None:
        """While another process writes it."""
        take_part(self.model, self.rows)
        take_part(self.training, self.rows)


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `folder` is either whole or as before.

    Raises:
        NumericError: a weight is not finite; such a checkpoint would push out a good one.
        StorageError: disk full or read-only.
    """
    for name, tensor in checkpoint.model.items():
        if not finite(tensor):
            raise NumericError(
                f"refused to save {folder.name}: {name} is not finite",
                "Lower optim.lr or set trainer.clip.norm, and resume from the last checkpoint.",
            )
    with storage_errors(f"save {folder}"), folder_atomically(folder) as new:
        write_tensors(checkpoint.model, checkpoint.rows, new / "model.safetensors")
        write_tensors(checkpoint.training, checkpoint.rows, new / "training.safetensors")
        (new / "state.json").write_text(json.dumps(checkpoint.state, indent=1), encoding="utf-8")
        (new / "config.yaml").write_text(checkpoint.config, encoding="utf-8")
        (new / "tokenizer.json").write_text(json.dumps(checkpoint.tokenizer), encoding="utf-8")
        files = {
            path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in sorted(new.iterdir())
        }
        manifest = _canonical({"format": FORMAT, "files": files})
        (new / MANIFEST).write_text(manifest, encoding="utf-8")
        for path in new.iterdir():
            sync(path)


def finite(tensor: Tensor) -> bool:
    """Every element is finite: the extremes are, for a NaN is both of them."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


def detached(checkpoint: Checkpoint) -> Checkpoint:
    """A copy in host memory that training does not write to."""

    def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}

    return replace(
        checkpoint,
        model=copies(checkpoint.model),
        training=copies(checkpoint.training),
        state=deepcopy(checkpoint.state),
    )


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        CheckpointError: a file is missing, truncated, altered or none of ours, or the format is
            another.
    """
    verify(folder)
    return Checkpoint(
        model=read_tensors(folder / "model.safetensors"),
        training=read_tensors(folder / "training.safetensors"),
        state=read_json_object(folder / "state.json", _MAX_STATE),
        config=read_text(folder / "config.yaml", _MAX_CONFIG),
        tokenizer=read_json_object(folder / "tokenizer.json", _MAX_TOKENIZER),
    )


def verify(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: saying which file differs and how.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}", "Check the path.")
    manifest = read_json_object(folder / MANIFEST, _MAX_MANIFEST)
    _check_format(folder, manifest)
    if _canonical(manifest) != read_text(folder / MANIFEST, _MAX_MANIFEST):
        raise CheckpointError(f"{folder / MANIFEST} is damaged: it is not as written", REMEDY)
    files = manifest.get("files")
    if not isinstance(files, dict) or files.keys() != FILES:
        raise CheckpointError(
            f"{folder / MANIFEST} does not list the files {', '.join(sorted(FILES))}", REMEDY
        )
    for name, entry in files.items():
        path = folder / name
        if not isinstance(entry, dict):
            raise CheckpointError(f"{folder / MANIFEST} says nothing of {name}", REMEDY)
        if not path.is_file() or path.is_symlink():
            raise CheckpointError(f"{path} is missing or no plain file", REMEDY)
        with contained(path):
            same = path.stat().st_size == entry.get("bytes") and sha256(path) == entry.get("sha256")
        if not same:
            raise CheckpointError(f"{path} is damaged: it differs from the manifest", REMEDY)


def _check_format(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse what this version does not read, saying which version would."""
    found = manifest.get("format")
    if type(found) is not int:
        raise CheckpointError(f"{folder / MANIFEST} states no format", REMEDY)
    if found != FORMAT:
        whose = "a newer" if found > FORMAT else "an older"
        raise CheckpointError(
            f"{folder} has format {found}, of {whose} lm; this one reads format {FORMAT}",
            "Use the version of lm that wrote it.",
        )


def _canonical(manifest: dict[str, Any]) -> str:
    """The one way in which a manifest is written, so that no byte of it can change unnoticed."""
    return json.dumps(manifest, indent=1)


def verifies(folder: Path) -> bool:
    """Whether `verify` passes; the log says why not."""
    try:
        verify(folder)
    except CheckpointError as error:
        log.warning("%s", error.cause)
        return False
    return True
