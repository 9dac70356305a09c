"""Lightning: `lightning_lm.py`, written after its documentation."""

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from peers.forge import forged_by
from peers.host import Process
from peers.programs import HERE, SAVE_EVERY, Program


class Lightning(Program):
    """With what it saves by itself."""

    key, title = "lightning", "Lightning"
    about = (
        "`scripts/peers/lightning_lm.py` with `ModelCheckpoint` every 10 steps and for the best"
        " validation, `OnExceptionCheckpoint` and a loader that can resume."
    )
    misplaced: ClassVar[list[str]] = ["--out", "file/out"]
    script = HERE / "lightning_lm.py"
    switches: ClassVar[list[str]] = []

    def arguments(self, settings: Mapping[str, Any], data: Path) -> list[str]:
        given = [item for key, value in settings.items() for item in (f"--{key}", str(value))]
        places = ["--data", str(data), "--out", ".", "--every", str(SAVE_EVERY)]
        return ["fit", *places, *given, *self.switches]

    def checkpoints(self, place: Path) -> list[Path]:
        others = ("best.ckpt", "final.ckpt")
        return [path for path in self.everything(place) if path.name not in others]

    def everything(self, place: Path) -> list[Path]:
        found = place.rglob("*.ckpt")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def finals(self, place: Path) -> list[Path]:
        return sorted(place.rglob("final.ckpt"))

    def use(self, checkpoint: Path | str, place: Path) -> Process:
        arguments = ["generate", "--data", str(self.data), "--checkpoint", str(checkpoint)]
        # Where torch keeps what it fetches from an address.
        return self.start(arguments, place, environment={"TORCH_HOME": str(place)})

    def resume_arguments(self, checkpoint: Path, settings: Mapping[str, Any]) -> list[str]:
        return [*self.arguments(settings, self.data), "--resume", str(checkpoint)]

    def forge(self, checkpoint: Path, place: Path, marker: Path) -> dict[str, Path | str]:
        return forged_by(self, checkpoint, place, marker)

    def plant(self, checkpoint: Path, place: Path) -> None:
        shutil.copy(checkpoint, place / "epoch=0-step=100.ckpt")

    def versions(self) -> dict[str, str]:
        return self.host.versions("lightning", "fsspec")


class LightningWithHooks(Lightning):
    """With hooks of one's own, and `detect_anomaly` where numbers go wrong: it halves the speed."""

    key, title = "lightning_hooks", "Lightning + own hooks"
    about = (
        "The same, with hooks of one's own (`--keep-state`) that save the recurrent state and the"
        " generator, and with `detect_anomaly` where numbers go wrong."
    )
    switches: ClassVar[list[str]] = ["--keep-state"]
    same_as = Lightning.title
    guards: ClassVar[list[str]] = ["--detect-anomaly"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on this machine's own network."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
