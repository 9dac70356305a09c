"""One job of a verb, carried out by this process or by several together.

Several come about in two ways. torchrun starts them all with the same command line: the first one
composes the jobs and hands each to the others, which follow. Or the command line asks for them
with `runtime.processes`: then they are started here, for one job, by torchrun's own agent.
"""

import itertools
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module  # noqa: TID251 (of a verb)
from pathlib import Path
from typing import Any

from lm import config
from lm.cli.report import as_user_error, report
from lm.commands import module_of
from lm.config.handover import handed_over, taken_over
from lm.errors import LmError, OutOfMemoryError, ProcessError, Stopped
from lm.run_directory import ConsoleHandler
from lm.runtime.connection import as_error
from lm.runtime.device import RuntimeConfig
from lm.runtime.joining import joined
from lm.runtime.launcher import run_processes
from lm.runtime.processes import Processes

# With what the others end when one of them was killed.
_CONSEQUENCES = {ProcessError.code, Stopped.code}
# What starting again may mend: a process was lost, or the memory of its machine was taken.
_MENDABLE = {LmError.code, ProcessError.code, OutOfMemoryError.code}


def run_job(verb: str, call: config.Invocation) -> float | None:
    """Parse the configuration and run the verb's command."""
    command = import_module(module_of(verb))
    parsed = config.parse(call.config, config.ROOTS[verb])
    if verb == "train" and call.processes.alone and parsed.runtime.processes > 1:
        return _in_processes(call, parsed.runtime)
    with config.invoking(call), _console(call.processes):
        result: float | None = command.run(parsed)
        return result


class Leader:
    """The first of torchrun's processes: gives each job of the command line to the others."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._jobs = 0

    def lead(self, call: config.Invocation) -> config.Invocation:
        """The call with all processes, which begin it too."""
        self._processes.messages.put(f"job/{self._jobs}", handed_over(call))
        processes = self._processes.of_job(self._jobs)
        self._jobs += 1
        return replace(call, processes=processes)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Let the others go at the end, with the exit code of what is raised."""
        code = LmError.code
        try:
            yield
            code = 0
        except (Exception, Stopped) as error:
            known = as_user_error(error)
            code = LmError.code if known is None else known.code
            raise
        finally:
            self._processes.messages.put_last(f"job/{self._jobs}", {"end": code})


def follow(processes: Processes) -> int:
    """Do with the first process what it does; it speaks for all.

    Returns:
        the exit code: 0 where the first one has a failure to end with, which the agent would cut
        short if this process ended so before.
    """
    code = 0
    for number in itertools.count():
        said = processes.messages.await_(f"job/{number}", of=0)
        if "end" in said:
            return 0 if said["end"] else code
        try:
            run_job("train", taken_over(said, processes.of_job(number)))
        except (Exception, Stopped) as error:
            code = code or _outcome(error, processes)["code"]
    raise AssertionError


def work(folder: Path, patience_seconds: float) -> int:
    """One of the processes that `run_job` starts: do the job that lies in the folder.

    Args:
        patience_seconds: how long another one may keep it waiting, until the job says so itself.

    Returns:
        the exit code, for the agent: not 0 if it may start all of them again.
    """
    with joined(patience_seconds) as processes:
        told = folder / "outcome.json"
        if processes.first:
            told.unlink(missing_ok=True)  # of the attempt before
        outcome = _tried(folder / "job.json", processes)
        code: int = outcome["code"]
        if processes.first:
            told.write_text(json.dumps(outcome), encoding="utf-8")
            processes.end_with(code)
        elif code and processes.end_of_first() != code:
            return code  # the others are waiting for this process, and have to be told
    return code if code in _MENDABLE else 0


def _tried(job: Path, processes: Processes) -> dict[str, Any]:
    """What came of the job: its value, or why it failed."""
    try:
        call = taken_over(json.loads(job.read_bytes()), processes)
        return {"code": 0, "value": run_job("train", call)}
    except (Exception, Stopped) as error:
        return _outcome(error, processes)


def _outcome(error: BaseException, processes: Processes) -> dict[str, Any]:
    """How a job ended in this process; a bug of ours shows its traceback."""
    known = as_user_error(error)
    if known is None or os.environ.get("LM_TRACEBACK") == "1":
        report(error, f"process {processes.rank}: ")
    if known is None:
        return {"code": LmError.code, "cause": f"{type(error).__name__}: {error}", "remedy": ""}
    return {"code": known.code, "cause": known.cause, "remedy": known.remedy}


def _in_processes(call: config.Invocation, runtime: RuntimeConfig) -> float | None:
    """The job in so many processes of this machine; what it returns or raises there."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        (Path(folder) / "job.json").write_text(json.dumps(handed_over(call)), encoding="utf-8")
        arguments = ["-m", "lm.cli.worker", folder, str(runtime.timeout_seconds)]
        killed = run_processes(
            [sys.executable, *arguments], count=runtime.processes, restarts=runtime.restarts
        )
        told = Path(folder) / "outcome.json"
        outcome = json.loads(told.read_bytes()) if told.exists() else None
    if killed is not None and (outcome is None or outcome["code"] in _CONSEQUENCES):
        raise killed  # the others could only say that it was gone, or that they were told to stop
    if outcome is None:
        raise ProcessError("the processes were stopped before the run began")
    if outcome["code"]:
        raise as_error(outcome)
    value: float | None = outcome["value"]
    return value


@contextmanager
def _console(processes: Processes) -> Iterator[None]:
    """Show `lm`'s log on standard error while a command runs; of several processes, one's."""
    logger = logging.getLogger("lm")
    # Without any handler Python itself would print warnings.
    handler = ConsoleHandler() if processes.first else logging.NullHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
