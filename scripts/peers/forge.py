"""Checkpoints that run code when they are unpickled, made from a real one.

`python forge.py MODEL.PY CHECKPOINT FOLDER MARKER`, under the interpreter of the program that wrote
the checkpoint. The payload creates the marker, an empty file, and nothing else.
"""

import contextlib
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.programs import Program

NAMES = ("alone", "within", "old format", "bare pickle", "class named")


class Payload:
    """Creates the marker when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mknod, (self.marker, 0o600)


def main(script: str, checkpoint: str, folder: str, marker: str) -> None:
    """Write the forgeries."""
    import torch

    sys.path.insert(0, str(Path(script).parent))
    payload, place = Payload(marker), Path(folder)
    torch.save(payload, place / NAMES[0])
    torch.save(_hidden(torch.load(checkpoint, weights_only=False), payload), place / NAMES[1])
    torch.save(payload, place / NAMES[2], _use_new_zipfile_serialization=False)
    (place / NAMES[3]).write_bytes(pickle.dumps(payload))
    for name in NAMES[:4]:
        _prove(place / name, Path(marker))
    named = torch.load(checkpoint, weights_only=False)
    if isinstance(named, dict) and "hyper_parameters" in named:
        named["hyper_parameters"]["_instantiator"] = "os.mknod"
        named["hyper_parameters"]["_class_path"] = marker
        torch.save(named, place / NAMES[4])


def _prove(path: Path, marker: Path) -> None:
    """Make sure that the forgery works where nothing is in its way; otherwise it proves nothing."""
    import torch

    with contextlib.suppress(RuntimeError):  # what is no checkpoint has run before that is noticed
        torch.load(path, weights_only=False)
    marker.unlink()


def _hidden(found: Any, payload: Payload) -> Any:
    """The payload in an attribute of a module, or in an entry of a dictionary."""
    if isinstance(found, dict):
        return {**found, "note": payload}
    found.note = payload
    return found


def forged_by(
    program: "Program", checkpoint: Path, place: Path, marker: Path
) -> dict[str, Path | str]:
    """Let a program's own interpreter make the forgeries; by name."""
    here = [program.script, checkpoint, place, marker]
    done = program.host.start(Path(__file__), [str(item) for item in here], place)
    assert done.wait() == 0, done.said()
    return {name: place / name for name in NAMES if (place / name).exists()}


if __name__ == "__main__":
    main(*sys.argv[1:])
