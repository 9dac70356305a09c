"""Content that runs code where it is read carelessly; here it would touch a canary file."""

import io
import json
import marshal
import os
import pickle
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stranger import FILES, MANIFEST, checkpoint_of, read_header, with_header


@dataclass(frozen=True, slots=True)
class Payload:
    """A change to a run.

    Attributes:
        family: what it is like; a few are taken of each.
        change: takes the run's directory.
        harmless: what is changed is not read, so that the run is as good as before.
        listed: in the manifest, which can be made to agree with it; None is the manifest itself.
        only_resumed: what is changed is read when the run goes on, and need not be otherwise.
    """

    family: str
    name: str
    change: Callable[[Path], object]
    harmless: bool = False
    listed: bool | None = True
    only_resumed: bool = False

    def codes(self, reader: str, *, sealed: bool) -> set[int]:
        """The exit codes that will do."""
        if self.listed and not sealed:
            return {4}
        if self.only_resumed and reader != "resume":
            return {0, 4}
        return {0} if self.harmless else {4}


class _Call:
    """Is pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def executables(canary: Path) -> dict[str, bytes]:
    """Files that run when they are unpickled, imported or executed."""
    touch, python = f"touch {shlex.quote(str(canary))}", f"open({str(canary)!r}, 'w').close()"
    system = _Call(os.system, touch)
    zipped, legacy, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(system, zipped)
    torch.save(system, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([system], dtype=object))
    return {
        "pickle of os.system": pickle.dumps(system),
        "pickle of builtins.exec": pickle.dumps(_Call(exec, python), protocol=0),
        "torch.save": zipped.getvalue(),
        "torch.save in the old format": legacy.getvalue(),
        "numpy.save of objects": array.getvalue(),
        "marshalled code": marshal.dumps(compile(python, "x", "exec")),
        "Python": python.encode(),
        "shell script": f"#!/bin/sh\n{touch}\n".encode(),
    }


def yaml_values(canary: Path) -> list[str]:
    """Values that run something in a careless YAML loader, OmegaConf or Hydra."""
    touch = f"touch {canary}"
    return [
        f"!!python/object/apply:os.system ['{touch}']",
        f"!!python/object/new:os.system ['{touch}']",
        "!!python/name:os.system ''",
        "!!python/module:antigravity ''",
        f"{{_target_: os.system, command: '{touch}'}}",
        f"{{_target_: torch.load, f: '{canary}', weights_only: false}}",
        "${oc.env:HOME}",
        "'${oc.decode:\"{_target_: os.system}\"}'",
        "'${oc.create:{_target_: os.system}}'",
        f"'${{evil:{canary}}}'",
        f'"\\x24{{evil:{canary}}}"',
        "!!timestamp x",
    ]


def json_values(canary: Path) -> list[object]:
    """Class hints that careless readers of JSON follow."""
    touch = f"touch {canary}"
    return [
        {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": [touch]}]},
        {"py/object": "subprocess.Popen", "args": touch},
        {"__class__": "os.system", "__init__": [touch]},
        {"$type": "os.system", "command": touch},
        {"_target_": "os.system", "command": touch},
        "os.system",
        "lm.commands.import_",
    ]


def payloads(canary: Path) -> Iterator[Payload]:
    """Everything, in every file."""
    run = executables(canary)
    for kind, content in run.items():
        for name in (*FILES, MANIFEST):
            change = partial(_put, name, content)
            yield Payload("a file", f"{kind} as {name}", change, listed=_listed(name))
    yield from _in_yaml(canary)
    yield from _in_json(canary)
    for name in ("model.safetensors", "training.safetensors"):
        hints = {"format": "pickle", "__reduce__": "os.system", "_target_": f"touch {canary}"}
        change = partial(_put_metadata, name, hints)
        yield Payload("metadata", f"hostile metadata in {name}", change, harmless=True)
    for name, kind in _BESIDE.items():
        for folder in ("", "../.."):
            change = partial(_put, f"{folder}/{name}".lstrip("/"), run[kind])
            what = f"{folder}/{name} beside the files"
            yield Payload("beside", what, change, harmless=True, listed=False)
    for name in (*FILES, MANIFEST):
        for target in ("outside", "/dev/zero", "pipe"):
            change = partial(_put_link, name, target)
            yield Payload("a link", f"{name} is a link to {target}", change, listed=_listed(name))
    for kind, content in {**run, **_POINTERS}.items():
        for name in ("last", "best"):
            change = partial(_put, f"../{name}", content)
            what = f"{kind} as the pointer {name}"
            yield Payload("a pointer", what, change, harmless=True, listed=False)


def _listed(name: str) -> bool | None:
    return None if name == MANIFEST else True


_BESIDE = {
    "model.pt": "torch.save",
    "pytorch_model.bin": "torch.save",
    "optimizer.pkl": "pickle of os.system",
    ".metadata": "pickle of builtins.exec",
    "__init__.py": "Python",
    "sitecustomize.py": "Python",
    "config.py": "Python",
    "lm.py": "Python",
    "hydra_plugins/evil.py": "Python",
    "configs/local/default.yaml": "Python",
}
_POINTERS = {
    "a path outside": b"../../../outside",
    "an absolute path": b"/tmp",
    "a name and more": b"step-000000010/../..",
    "a megabyte": b"step-000000010" * 75_000,
}
_PLACES: dict[str, Sequence[str]] = {
    "state.json": (
        "", "progress", "progress.step", "optimizer.kinds", "schedule", "compute",
        "compute.precision", "data", "averaging.losses", "architecture", "tokenizer",
    ),
    "tokenizer.json": ("", "kind", "words", "unknown"),
    MANIFEST: ("", "format", "files"),
}  # fmt: skip


_READ_BY_ALL = ("architecture", "tokenizer")


def _in_yaml(canary: Path) -> Iterator[Payload]:
    for value in yaml_values(canary):
        for key in ("name", "runs", "evil"):
            change = partial(_put_line, f"{key}: {value}\n")
            yield Payload("YAML", f"config.yaml with {key}: {value}", change)
        change = partial(_put_line, f"? {value}\n: 1\n")
        yield Payload("YAML", f"config.yaml with the key {value}", change)
        change = partial(_put, "config.yaml", value.encode())
        yield Payload("YAML", f"config.yaml is {value!r}", change)


def _in_json(canary: Path) -> Iterator[Payload]:
    for value in json_values(canary):
        for name, places in _PLACES.items():
            for place in places:
                what = f"{json.dumps(value)[:40]} at {place or 'the root'} of {name}"
                change = partial(_put_json, name, place, value)
                yield Payload(
                    f"JSON in {name}",
                    what,
                    change,
                    listed=_listed(name),
                    only_resumed=name == "state.json" and place not in _READ_BY_ALL,
                )


def _put(name: str, content: bytes, run: Path) -> None:
    path = checkpoint_of(run) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _put_metadata(name: str, hints: dict[str, str], run: Path) -> None:
    header, data = read_header((checkpoint_of(run) / name).read_bytes())
    _put(name, with_header({"__metadata__": hints, **header}, data), run)


def _put_line(line: str, run: Path) -> None:
    """A line of the configuration in the place of the one with the same key."""
    path, key = checkpoint_of(run) / "config.yaml", line.partition(":")[0]
    kept = [text for text in path.read_text().splitlines() if not text.startswith(f"{key}:")]
    path.write_text("\n".join([*kept, line]))


def _put_json(name: str, place: str, value: object, run: Path) -> None:
    path = checkpoint_of(run) / name
    content: Any = json.loads(path.read_text())
    if place:
        *outer, last = place.split(".")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
    else:
        content = value
    path.write_text(json.dumps(content))


def _put_link(name: str, target: str, run: Path) -> None:
    path, outside = checkpoint_of(run) / name, run.parent / "outside"
    path.replace(outside)
    if target == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if target == "outside" else target)
