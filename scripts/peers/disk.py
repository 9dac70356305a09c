"""The row of a disk that fills up: a small file system of its own and a job that takes all room."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from peers.host import Process, until
from peers.plan import Answer, NotApplicableError, Trial, row
from peers.programs import Program
from peers.stopping import SAME, whole_run

_MEGABYTES = 16


@row(
    "disk", "the disk fills up after the first save", 5,
    kept="a readable checkpoint is left",
    said="the exit code is not 0",
    clean="without a traceback",
    resumed="with room again, a resume goes on to the end",
    same=SAME,
)  # fmt: skip
def full_disk(program: Program, trial: Trial) -> Iterator[Answer]:
    whole = whole_run(program, trial)
    for k in range(trial.times):
        with small_disk(trial.place(k)) as place:
            process = program.train(place)
            until(partial(_saved, program, place, process))
            with filled(place / "taken"):
                code = process.wait()
            found = program.checkpoints(place)
            readable = [path for path in found if _readable(program, path)]
            others = len(found) > len(readable)
            resumed, same = False, None
            again = program.resume(place, checkpoint=readable[0]) if readable else None
            if again is not None:
                resumed = again.wait() == 0
                same = whole.digest in program.digests(place)
            held = {"kept": bool(readable), "said": code != 0, "clean": not process.traceback,
                    "resumed": resumed, "same": same}  # fmt: skip
            yield Answer(held, f"exit {code}" + (", unreadable files left" if others else ""))


def _readable(program: Program, checkpoint: Path) -> bool:
    return not program.probe(checkpoint)[0].unreadable


def _saved(program: Program, place: Path, process: Process) -> bool:
    """There is a whole checkpoint."""
    found = program.everything(place)
    return not process.running or (bool(found) and _readable(program, found[0]))


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of a few megabytes in memory; mounting it needs to be root."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise NotApplicableError("not measured: mounting a file system needs to be root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def filled(path: Path) -> Iterator[None]:
    """Take all room there is, and what becomes free too, as another job's output would."""
    stop = threading.Event()

    def fill() -> None:
        with path.open("wb", buffering=0) as file:
            while not stop.is_set():
                try:
                    file.write(bytes(4096))
                except OSError:
                    time.sleep(0.0002)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()
