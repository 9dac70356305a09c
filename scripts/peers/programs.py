"""A trainer of the comparison, behind one set of verbs: train, resume, use a checkpoint."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from peers.host import Host, Process

HERE = Path(__file__).parent
SAVE_EVERY = 10
# One recipe for all: an LSTM of two layers, plain SGD, gradients clipped to norm 0.25.
RECIPE: Mapping[str, Any] = {
    "size": 32, "epochs": 3, "window": 35, "streams": 20, "lr": 5, "dropout": 0.2, "seed": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """What stands in a checkpoint.

    Attributes:
        step: what it is of, where it says so.
        digest: of the weights.
        difference: the largest of a weight to the one in the first file that was asked about.
        unreadable: why there is nothing of that.
    """

    step: int | None = None
    digest: str = ""
    finite: bool = False
    difference: float | None = None
    unreadable: str = ""


class Program(ABC):
    """A trainer.

    Args:
        host: where it runs.
        data: the folder with the three splits.

    Attributes:
        about: what was run, in a sentence.
        resumes: it has a way to continue a run.
        save_every: steps between its saves; None is once an epoch.
        script: what is run, and beside which its classes are.
        same_as: whose files it writes and reads in the same way, so that these need no second look.
        guards: options against numbers that are not finite, where they are not its default.
        misspelt: an option that it does not have.
        misplaced: what sends its output below a file.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    resumes: ClassVar[bool] = True
    save_every: ClassVar[int | None] = SAVE_EVERY
    misspelt: ClassVar[list[str]] = ["--dropuot", "0.5"]
    misplaced: ClassVar[list[str]]
    same_as: ClassVar[str] = ""
    guards: ClassVar[list[str]] = []
    script: Path

    def __init__(self, host: Host, data: Path) -> None:
        self.host, self.data = host, data

    @abstractmethod
    def arguments(self, settings: Mapping[str, Any], data: Path) -> list[str]:
        """The command line of a training run with the settings of `RECIPE`."""

    @abstractmethod
    def checkpoints(self, place: Path) -> list[Path]:
        """What a user would go on from, newest first."""

    @abstractmethod
    def everything(self, place: Path) -> list[Path]:
        """All checkpoints, whatever they are for."""

    @abstractmethod
    def finals(self, place: Path) -> list[Path]:
        """What finished runs leave."""

    @abstractmethod
    def use(self, checkpoint: Path | str, place: Path) -> Process:
        """Load a checkpoint in the documented way and generate a little."""

    @abstractmethod
    def resume_arguments(self, checkpoint: Path, settings: Mapping[str, Any]) -> list[str]:
        """The command line that goes on from a checkpoint."""

    @abstractmethod
    def forge(self, checkpoint: Path, place: Path, marker: Path) -> dict[str, Path | str]:
        """Checkpoints that would create the marker if anything in them were run, by name."""

    @abstractmethod
    def plant(self, checkpoint: Path, place: Path) -> None:
        """Make a checkpoint the only one of a run in a new place."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """What was compared."""

    def start(self, arguments: Sequence[str], place: Path, **options: Any) -> Process:
        """Start it with this command line."""
        return self.host.start(self.script, arguments, place, **options)

    def train(
        self,
        place: Path,
        settings: Mapping[str, Any] | None = None,
        data: Path | None = None,
        extra: Sequence[str] = (),
        **options: Any,
    ) -> Process:
        """Start a run; `settings` are what differs from the recipe."""
        arguments = self.arguments({**RECIPE, **(settings or {})}, data or self.data)
        return self.start([*arguments, *extra], place, **options)

    def resume(
        self,
        place: Path,
        settings: Mapping[str, Any] | None = None,
        checkpoint: Path | None = None,
    ) -> Process | None:
        """Go on from a checkpoint, the newest by default; None where there is none, or no way."""
        found = [checkpoint] if checkpoint else self.checkpoints(place)
        if not self.resumes or not found:
            return None
        return self.start(self.resume_arguments(found[0], {**RECIPE, **(settings or {})}), place)

    def save_loop(self, place: Path, environment: dict[str, str], times: int) -> Process:
        """Start a process that saves a model of ordinary size so many times in its own way."""
        arguments = [self.key, str(self.script), str(times)]
        return self.host.start(HERE / "save_loop.py", arguments, place, environment=environment)

    def probe(self, *paths: Path) -> list[Contents]:
        """What stands in checkpoints."""
        if not paths:
            return []
        done = self.host.start(HERE / "probe.py", [str(self.script), *map(str, paths)], HERE)
        done.wait()
        lines = [line for line in done.said().splitlines() if line.startswith("{")]
        assert len(lines) == len(paths), done.said()
        return [Contents(**json.loads(line)) for line in lines]

    def digests(self, place: Path) -> list[str]:
        """Of the weights of the runs that finished there."""
        return [found.digest for found in self.probe(*self.finals(place))]
