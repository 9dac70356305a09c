"""A disk that fails at a chosen change: a process under a library that stands before C's own.

Run as a program, it does one of ACTIONS for each line on standard input, in a process of its own
each, and answers with one line of JSON.
"""

import atexit
import contextlib
import ctypes
import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE / "failing_disk.c"


def compiled(folder: Path) -> Path:
    """The library, built with the compiler that builds our kernels."""
    library = folder / "failing_disk.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


class FailingDisk:
    """A server of processes whose disk fails.

    Args:
        folder: where the library and the log go.
    """

    def __init__(self, folder: Path) -> None:
        source = str(HERE.parents[1] / "src")
        ours = (source, str(HERE.parent), str(HERE))
        paths = os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")])
        self._log = (folder / "failing_disk.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(compiled(folder)), "PYTHONPATH": paths},
        )

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._log.close()

    def act(
        self, action: str, folder: Path, change: int, number: int = errno.ENOSPC
    ) -> dict[str, Any]:
        """Do an action in this working directory while `folder` fails from its given change on.

        Args:
            action: one of ACTIONS, which is called with the folder.
            change: counted from 1; 0 lets all succeed.

        Returns:
            `code`, the exit code or −signal; `said`, its output; `changes`, how many there were.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = [action, str(Path.cwd()), str(folder), change, number]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@cache
def failing_disk() -> FailingDisk:
    """One for all rows, since its server takes seconds to start."""
    folder = tempfile.TemporaryDirectory()
    disk = FailingDisk(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(disk.close)  # before
    return disk


def save_a_checkpoint(folder: Path) -> int:
    """Save step 3 beside the checkpoints that are there; the exit code that `lm` would give."""
    from checkpoints import KEEP, example

    from lm.checkpoint import CheckpointFolder
    from lm.cli.report import report

    try:
        CheckpointFolder(folder).save(3, example(3), best=True, keep=KEEP)
    except Exception as error:
        return report(error)
    return 0


def train(folder: Path) -> int:
    """Train the small run in `folder`."""
    from small_run import RECIPE

    from lm.cli import main

    return main(["train", *RECIPE, f"runs={folder}/runs", "name=full", "trainer.bar=false"])


ACTIONS: dict[str, Callable[[Path], int]] = {
    function.__name__: function for function in (save_a_checkpoint, train)
}


def _serve() -> None:
    import warmed  # noqa: F401

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_in_a_process(*json.loads(line))) + "\n")
        sys.stdout.flush()


def _in_a_process(
    action: str, working: str, folder: str, change: int, number: int
) -> dict[str, Any]:
    receive, send = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(receive)
        os.chdir(working)
        with os.fdopen(send, "w") as pipe:
            json.dump(_armed(ACTIONS[action], folder, change, number), pipe)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not answer:
        return {"code": status, "said": "", "changes": 0}
    found: dict[str, Any] = json.loads(answer)
    return found


def _armed(action: Callable[[Path], int], folder: str, change: int, number: int) -> dict[str, Any]:
    library = ctypes.CDLL(None)
    library.failing_disk_disarm.restype = ctypes.c_long
    library.failing_disk_arm.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int)
    with _captured() as said:
        library.failing_disk_arm(folder.encode(), change, number)
        code = action(Path(folder))
        changes = library.failing_disk_disarm()
    return {"code": code, "said": said.getvalue(), "changes": changes}


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


if __name__ == "__main__":
    _serve()
