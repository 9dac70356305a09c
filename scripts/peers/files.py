"""Rows of checkpoint files that are damaged, forged, or half written."""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from peers.host import until
from peers.lightning_runs import Lightning, served
from peers.plan import Answer, NotApplicableError, Trial, row
from peers.programs import Program

Damage = Callable[[Random, bytes], bytes]


READABLE = "a readable checkpoint is left"
_NEWEST = "the newest one is readable"
_TIDY = "once the next run has saved, no half-written file is left"


@row(
    "save", "kill -9 inside a save", 100, files=True, readable=READABLE, newest=_NEWEST, tidy=_TIDY
)
def killed_in_save(program: Program, trial: Trial) -> Iterator[Answer]:
    for k in range(trial.times):
        yield _killed_in_save(program, trial.place(k), trial.draws, trial.place(f"{k}-temporary"))


@row(
    "save_across",
    "the same, the folder for temporary files being on another file system",
    100,
    files=True,
    readable=READABLE,
    newest=_NEWEST,
    tidy=_TIDY,
)
def killed_in_save_across(program: Program, trial: Trial) -> Iterator[Answer]:
    if not isinstance(program, Lightning):
        raise NotApplicableError("does not use it")
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == trial.place("here").stat().st_dev:
        raise NotApplicableError("not measured: there is no other file system")
    for k in range(trial.times):
        with tempfile.TemporaryDirectory(dir=other) as temporary:
            yield _killed_in_save(program, trial.place(k), trial.draws, Path(temporary))


def _killed_in_save(program: Program, place: Path, draws: Random, temporary: Path) -> Answer:
    environment = {"TMPDIR": str(temporary)}
    process = program.save_loop(place, environment, 10**9)
    until(lambda: "2\n" in process.said())
    time.sleep(draws.uniform(0, 0.3))
    process.send(signal.SIGKILL)
    process.wait()
    contents = program.probe(*program.everything(place))
    assert program.save_loop(place, environment, 1).wait() == 0
    files = [path for path in (*place.rglob("*"), *temporary.rglob("*")) if path.is_file()]
    debris = set(files) - set(_meant(program, place))
    shutil.rmtree(place)
    readable = [not found.unreadable for found in contents]
    return Answer({"readable": any(readable), "newest": readable[0], "tidy": not debris})


def _meant(program: Program, place: Path) -> Iterator[Path]:
    """The files of readable checkpoints, and what points to them."""
    found = program.everything(place)
    for path, contents in zip(found, program.probe(*found), strict=True):
        if not contents.unreadable:
            yield from [path, *path.rglob("*"), path.with_name("last"), path.with_name("best")]


def _flip(draws: Random, content: bytes) -> bytes:
    at = draws.randrange(len(content))
    return content[:at] + bytes([content[at] ^ draws.randrange(1, 256)]) + content[at + 1 :]


def _truncate(draws: Random, content: bytes) -> bytes:
    return content[: draws.randrange(len(content))]


def _damaged(damage: Damage, program: Program, trial: Trial) -> Iterator[Answer]:
    """Damage one file of a checkpoint, drawn by size, and use it."""
    good = _checkpoint(program, trial.place("good"))
    (before,) = program.probe(good)
    for k in range(trial.times):
        place = trial.place(k)
        copy = place / good.name
        (shutil.copytree if good.is_dir() else shutil.copy)(good, copy)
        files = [p for p in sorted(copy.rglob("*")) if p.is_file()] or [copy]
        (file,) = trial.draws.choices(files, [path.stat().st_size for path in files])
        file.write_bytes(damage(trial.draws, file.read_bytes()))
        process = program.use(copy, place)
        code = process.wait()
        seen = "noticed, traceback" if process.traceback else "noticed"
        if code == 0:
            (after,) = program.probe(copy)
            same = after.digest == before.digest
            seen = "unharmed weights used" if same else "other weights used"
        yield Answer({"noticed": code != 0, "right": seen != "other weights used"}, seen)
        shutil.rmtree(place)


def _checkpoint(program: Program, place: Path) -> Path:
    assert program.train(place, {"epochs": 1}).wait() == 0
    return program.everything(place)[0]


_RIGHT = "never generates from altered weights"
row(
    "flip",
    "one byte of a checkpoint altered",
    100,
    files=True,
    noticed="noticed on loading",
    right=_RIGHT,
)(partial(_damaged, _flip))
row("cut", "a checkpoint cut off", 50, files=True, noticed="noticed on loading", right=_RIGHT)(
    partial(_damaged, _truncate)
)


@row("payload", "code in a checkpoint", 1, files=True, harmless="not run by loading")
def payload(program: Program, trial: Trial) -> Iterator[Answer]:
    place = trial.place("forged")
    marker = place / "marker"
    good = _checkpoint(program, trial.place("good"))
    forged = program.forge(good, place, marker)
    with served(place) as address:
        if isinstance(program, Lightning):
            forged["from an address"] = f"{address}/alone"
        for number, (name, checkpoint) in enumerate(forged.items()):
            for way in (_use, _continue):
                folder = trial.place(f"{number}-{way.__name__}")
                if not way(program, checkpoint, folder):
                    continue
                yield Answer({"harmless": not marker.exists()}, _executed(marker, name))
                marker.unlink(missing_ok=True)


def _use(program: Program, checkpoint: Path | str, place: Path) -> bool:
    program.use(checkpoint, place).wait()
    return True


def _continue(program: Program, checkpoint: Path | str, place: Path) -> bool:
    """Resume from it as a run's only checkpoint; false where there is no such way."""
    if not program.resumes or isinstance(checkpoint, str):
        return False
    program.plant(checkpoint, place)
    process = program.resume(place)
    assert process is not None
    process.wait()
    return True


def _executed(marker: Path, name: str) -> str:
    return f"run: {name}" if marker.exists() else ""
