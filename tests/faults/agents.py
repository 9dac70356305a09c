"""Jobs of several processes: `lm train runtime.processes=N` and torchrun, and what they start.

torchrun's agent starts each process as a program of its own, which imports for seconds. Where no
programs are asked for it forks here, since the agent has imported `lm` already; all else (the
agent, its store, the signals, the exit codes) is torch's own.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from processes import Child, run_lm
from small_run import recipe

import lm

GONE_SECONDS = 10.0


class Job:
    """A job of several processes.

    Attributes:
        agent: what the user started; it starts and watches the others.
    """

    def __init__(
        self, *arguments: str, log: Path, torchrun: int | None = None, programs: bool = False
    ) -> None:
        """Start `lm …`, or torchrun with so many processes of it."""
        self._temporary = log.with_suffix(".tmp").absolute()
        self._temporary.mkdir(exist_ok=True)
        given = (list(arguments), self._temporary, programs)
        if torchrun is None:
            self.agent = Child(log, agent_of_lm, *given)
        else:
            self.agent = Child(log, agent_of_torch, *given, torchrun)

    def workers(self) -> list[int]:
        """The processes that it has started and that have not ended, the oldest first."""
        return sorted(pid for pid, parent in living() if parent == self.agent.pid)

    def wait(self) -> int:
        """The exit code.

        Raises:
            TimeoutError: it hangs; all of it is killed then.
        """
        try:
            return self.agent.wait()
        except TimeoutError:
            for pid in _working_here():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise

    def left_behind(self) -> list[str]:
        """Processes and temporary files that outlive the job; processes get a moment to end."""
        limit = time.monotonic() + GONE_SECONDS
        while (found := _working_here()) and time.monotonic() < limit:
            time.sleep(0.05)
        files = (path.name for path in self._temporary.iterdir())
        # torchrun leaves the folder for the logs that it does not write.
        left = [name for name in files if not name.startswith("torchelastic_")]
        return [*(f"process {pid}" for pid in found), *left]


def train(name: str, *extra: str, torchrun: bool = False, programs: bool = False) -> Job:
    """Start the small run in two processes under a name, with gradients that go through memory."""
    given = recipe("model.embedding_size=64", "model.hidden_size=64", *extra)
    return together("train", *given, name=name, torchrun=torchrun, programs=programs)


def together(*arguments: str, name: str, torchrun: bool = False, programs: bool = False) -> Job:
    """Start `lm …` in two processes, by itself or by torchrun, its output in a log of that name."""
    given, log = [*arguments, f"name={name}"], Path(f"{name}.log")
    if torchrun:
        return Job(*given, log=log, torchrun=2, programs=programs)
    return Job(*given, "runtime.processes=2", log=log, programs=programs)


def living() -> Iterator[tuple[int, int]]:
    """All processes that have not ended, with their parents."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                yield int(path.parent.name), int(parent)


def _working_here() -> list[int]:
    """The processes of jobs in this folder, whoever is their parent by now."""
    found, here, tests = [], Path.cwd(), os.getpid()
    for pid, parent in living():
        with suppress(OSError):
            # The server that forks was started by the tests, and may have been so here.
            if tests not in (pid, parent) and Path(f"/proc/{pid}/cwd").readlink() == here:
                found.append(pid)
    return found


def agent_of_lm(arguments: list[str], temporary: Path, programs: bool) -> int:
    """Be `lm …` that starts processes."""
    _prepare(temporary, programs)
    return run_lm(arguments)


def agent_of_torch(arguments: list[str], temporary: Path, programs: bool, count: int) -> int:
    """Be `torchrun --nproc-per-node COUNT -m lm …`."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    _prepare(temporary, programs)
    try:
        main([f"--nproc-per-node={count}", "--monitor-interval=0.1", "-m", "lm", *arguments])
    except ChildFailedError:  # torchrun shows its own traceback, and exits 1
        return 1
    return 0


def _prepare(temporary: Path, programs: bool) -> None:
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = str(Path(lm.__file__).parents[1])
    if not programs:
        SubprocessHandler._popen = lambda self, args, env: _Fork(args, env)  # type: ignore[assignment, return-value]


class _Fork:
    """What the agent takes for a `subprocess.Popen` of `python … -m MODULE ARGUMENT…`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(command[command.index("-m") + 1 :], environment)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        limit = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > limit:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return code


def _become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Be the program: a session, an environment, files and signal handlers of its own."""
    code = 1
    try:
        os.setsid()
        os.closerange(3, 1024)
        os.environ.clear()
        os.environ.update(environment)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = list(command)
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
