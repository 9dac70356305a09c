"""Meeting a run at the end of one of its steps, for what `lm verify-resume` does to it there."""

import shutil
import signal
from pathlib import Path
from types import FrameType

from lm.checkpoint import CheckpointFolder
from lm.runtime.files import storage_errors
from lm.training.signals import StopFlag

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows ends a process at once by either


def saved(run: Path, step: int) -> Path:
    """Where a run has its checkpoint of a step."""
    return CheckpointFolder(run / "checkpoints").of_step(step)


class Leaving(StopFlag):
    """Leaves at the first signal: of a verification there is nothing to save."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt


class Boundary(Leaving):
    """Acts at the end of a step, from the one on whose checkpoint is given.

    A run asks its flag there, once it has saved. So it is met at the very step, whatever else it
    does there, and the loop knows nothing of it.
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    @property
    def requested(self) -> str | None:
        return self.act() if self.checkpoint.is_dir() else None

    def act(self) -> str | None:
        """What to do; the name of a signal stops the run."""
        raise NotImplementedError


class StopThere(Boundary):
    """Stops the run as a signal does."""

    def act(self) -> str:
        return "SIGTERM"


class SetAside(Boundary):
    """Keeps a copy of the checkpoint, which the run may drop for newer ones."""

    def __init__(self, checkpoint: Path, copy: Path) -> None:
        super().__init__(checkpoint)
        self._copy = copy

    def act(self) -> None:
        if not self._copy.exists():
            with storage_errors(f"copy {self.checkpoint}"):
                shutil.copytree(self.checkpoint, self._copy)
