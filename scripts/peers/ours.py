"""`lm`, by its own commands."""

import json
import pickle
import shutil
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import torch

from lm.checkpoint import MANIFEST, CheckpointFolder, read
from lm.errors import LmError
from peers.forge import Payload
from peers.host import Process
from peers.probe import described
from peers.programs import HERE, SAVE_EVERY, Contents, Program

_FIELDS = {
    "size": ("model.embedding_size", "model.hidden_size"), "epochs": ("trainer.max_epochs",),
    "window": ("trainer.window",), "streams": ("trainer.batch_size",), "lr": ("optim.lr",),
    "dropout": ("model.dropout.embedding", "model.dropout.between", "model.dropout.output"),
    "seed": ("seed",),
}  # fmt: skip
_FIXED = (
    "data=text", "tokenizer=word", "model=lstm", "model.num_layers=2", "optim=sgd",
    "schedule=constant", "trainer.clip.norm=0.25", "trainer.valid_every=null",
    "trainer.valid_streams=10", f"trainer.save_every={SAVE_EVERY}", "trainer.sample_tokens=0",
    "trainer.test=false", "runtime.device=cpu", "runtime.threads=1",
)  # fmt: skip


class Ours(Program):
    """What is compared with them."""

    key, title = "lm", "lm"
    about = "`lm train` and `lm generate` with the same recipe, a save every 10 steps."
    misspelt: ClassVar[list[str]] = ["model.dropuot.output=0.5"]
    misplaced: ClassVar[list[str]] = ["runs=file/runs"]
    script = HERE / "ours.py"  # nothing runs it: the module `lm` is started

    def start(self, arguments: Any, place: Path, **options: Any) -> Process:
        return self.host.start("lm", arguments, place, **options)

    def arguments(self, settings: Mapping[str, Any], data: Path) -> list[str]:
        given = [f"{name}={value}" for key, value in settings.items() for name in _FIELDS[key]]
        splits = [f"data.{name}={data / name}.txt" for name in ("train", "valid", "test")]
        return ["train", *_FIXED, *splits, *given]

    def checkpoints(self, place: Path) -> list[Path]:
        runs = sorted(place.glob("runs/*/*/"), reverse=True)
        return [
            folder
            for run in runs
            for folder in CheckpointFolder(run / "checkpoints").newest_first()
        ]

    everything = checkpoints

    def finals(self, place: Path) -> list[Path]:
        found = []
        for summary in sorted(place.glob("runs/*/*/summary.json")):
            if json.loads(summary.read_text(encoding="utf-8"))["status"] == "done":
                found.append(CheckpointFolder(summary.with_name("checkpoints")).find("last"))
        return found

    def use(self, checkpoint: Path | str, place: Path) -> Process:
        return self.start(["generate", f"run={checkpoint}", "num_tokens=5"], place)

    def resume_arguments(self, checkpoint: Path, settings: Mapping[str, Any]) -> list[str]:
        return ["train", f"resume={checkpoint.parents[1]}"]

    def probe(self, *paths: Path) -> list[Contents]:
        contents, first = [], None
        for path in paths:
            try:
                weights = read(path).model
            except LmError as error:
                contents.append(Contents(unreadable=error.cause))
                continue
            first = weights if first is None else first
            step = int(path.name.removeprefix("step-"))
            contents.append(Contents(step=step, **described(weights, first)))
        return contents

    def forge(self, checkpoint: Path, place: Path, marker: Path) -> dict[str, Path | str]:
        """Every file replaced by a pickle and by torch's archive of one, and configurations that
        name what to call; each with a manifest that agrees, so that it gets as far as it can."""
        pickled = pickle.dumps(Payload(str(marker)))
        torch.save(Payload(str(marker)), place / "archive")
        pickle.loads(pickled)
        marker.unlink()  # the payload works where nothing is in its way
        calls = f"!!python/object/apply:os.mknod ['{marker}']\n"
        target = f"_target_: os.mknod\npath: {marker}\n"
        config = (checkpoint / "config.yaml").read_text(encoding="utf-8")
        forgeries = {f"pickle as {p.name}": (p.name, pickled) for p in checkpoint.iterdir()}
        for p in checkpoint.glob("*.safetensors"):
            forgeries[f"archive as {p.name}"] = (p.name, (place / "archive").read_bytes())
        forgeries["call in config.yaml"] = ("config.yaml", f"{config}note: {calls}".encode())
        forgeries["target in config.yaml"] = ("config.yaml", (target + config).encode())
        # Each in a run of its own, so that it can also be resumed.
        made: dict[str, Path | str] = {}
        for name, (file, content) in forgeries.items():
            run = shutil.copytree(checkpoint.parents[1], place / name)
            made[name] = forged = run / "checkpoints" / checkpoint.name
            (forged / file).write_bytes(content)
            if file != MANIFEST:
                _agree(forged)
        return made

    def plant(self, checkpoint: Path, place: Path) -> None:
        run = shutil.copytree(checkpoint.parents[1], place / "runs" / "planted" / "run")
        for other in CheckpointFolder(run / "checkpoints").newest_first():
            if other.name != checkpoint.name:
                shutil.rmtree(other)

    def versions(self) -> dict[str, str]:
        command = ["git", "-C", str(HERE), "log", "-1", "--format=%H %cs"]
        commit, date = subprocess.check_output(command, text=True).split()
        return {"commit": commit[:12], "of": date}


def _agree(folder: Path) -> None:
    """Write a manifest that the files agree with."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    path.write_text(json.dumps(manifest), encoding="utf-8")
