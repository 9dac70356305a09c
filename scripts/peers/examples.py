"""pytorch/examples, `word_language_model`: the files as they are."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from peers.forge import forged_by
from peers.host import Host, Process
from peers.programs import Program

_OPTIONS = {
    "size": ("--emsize", "--nhid"), "epochs": ("--epochs",), "window": ("--bptt",),
    "streams": ("--batch_size",), "lr": ("--lr",), "dropout": ("--dropout",), "seed": ("--seed",),
}  # fmt: skip


class Examples(Program):
    """It saves the model after an epoch if validation improved, and has no way to resume."""

    key, title = "examples", "pytorch/examples"
    about = "`word_language_model/main.py` and `generate.py` as they are."
    resumes = False
    save_every = None
    misplaced: ClassVar[list[str]] = ["--save", "file/model.pt"]

    def __init__(self, host: Host, data: Path, checkout: Path) -> None:
        super().__init__(host, data)
        self.script = checkout / "word_language_model" / "main.py"

    def arguments(self, settings: Mapping[str, Any], data: Path) -> list[str]:
        given = [
            item for key, value in settings.items() for name in _OPTIONS[key]
            for item in (name, str(value))
        ]  # fmt: skip
        return ["--data", str(data), "--save", "model.pt", *given]

    def checkpoints(self, place: Path) -> list[Path]:
        return [path for path in [place / "model.pt"] if path.exists()]

    everything = finals = checkpoints

    def use(self, checkpoint: Path | str, place: Path) -> Process:
        arguments = ["--data", str(self.data), "--checkpoint", str(checkpoint), "--words", "5"]
        return self.host.start(self.script.with_name("generate.py"), arguments, place)

    def resume_arguments(self, checkpoint: Path, settings: Mapping[str, Any]) -> list[str]:
        raise NotImplementedError("there is no way to")

    def forge(self, checkpoint: Path, place: Path, marker: Path) -> dict[str, Path | str]:
        return forged_by(self, checkpoint, place, marker)

    def plant(self, checkpoint: Path, place: Path) -> None:
        shutil.copy(checkpoint, place / "model.pt")

    def versions(self) -> dict[str, str]:
        command = ["git", "-C", str(self.script.parent), "log", "-1", "--format=%H %cs"]
        commit, date = subprocess.check_output(command, text=True).split()
        return {"commit": commit[:12], "of": date}
