"""A trial's process: `lm train`, which saves and leaves when the sweep says so, or dies."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from lm.runtime.files import storage_errors
from lm.runtime.interpreter import module_command

_ERROR = "lm: error: "
_LONGEST_LOG = 1 << 16


@runtime_checkable
class Process(Protocol):
    """What a sweep needs of a trial's process."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def stop(self) -> None:
        """Ask it to save and leave."""

    def kill(self) -> None:
        """End it at once."""

    def complaint(self) -> str:
        """The line that says what went wrong."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a trial's process is to do.

    Attributes:
        directory: of its run.
        overrides: of `lm train`.
        swept: the names that the sweep varies, for TensorBoard's table of runs.
        place: which of the processes side by side it is, from 0.
    """

    directory: Path
    overrides: Sequence[str]
    swept: Sequence[str]
    place: int


class TrainProcess:
    """`lm.cli.trial` with what it says in a file beside the run directory."""

    def __init__(self, order: Order) -> None:
        self._log = order.directory.with_name(f"{order.directory.name}.log")
        command = module_command(
            "lm.cli.trial", str(order.directory), ",".join(order.swept), *order.overrides
        )
        with storage_errors(f"write {self._log}"), self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end says stop, however we come to an end
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | visible_devices(order.place),
                start_new_session=True,  # Ctrl-C is for us: a second signal would not save
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def complaint(self) -> str:
        return complaint(self._log, self._process.returncode)


def complaint(log: Path, code: int) -> str:
    """What a process that failed said of it, on one line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LONGEST_LOG))
        lines = [text for text in file.read().decode(errors="replace").splitlines() if text.strip()]
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    if errors:
        return errors[-1]
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"ended by {ended}, see {log}"


def visible_devices(place: int) -> dict[str, str]:
    """The variable that gives each of several trials a GPU of its own, in turn."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(k) for k in range(count)]
    return {"CUDA_VISIBLE_DEVICES": devices[place % count]}
