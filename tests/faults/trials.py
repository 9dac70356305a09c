"""Many cases in one process of its own, each within limits of time and memory."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

from fault_plan import Finding, Trial
from processes import Child

SECONDS = 5.0  # of the processor, that a case may take that only reads
WAIT_SECONDS = 60.0  # in all, on a machine that may have other things to do
MEMORY = 256 << 20  # that a case may add to what the process has, in bytes
SPARE = 2 << 30  # address space beyond what the process has before the first case
TIMEOUT = 3600.0
ONLY = "LM_TEST_ONLY"
"""Names an environment variable: a part of the names of the cases to do."""

Cases = Callable[..., Iterator[tuple[str, Callable[[], str | None]]]]


def drawn(cases: Sequence[tuple[str, str]], trial: Trial) -> list[int]:
    """Which cases to do: all, or as many as the trial asks for, of each family in turn.

    Args:
        cases: family and name of each.
    """
    only = os.environ.get(ONLY, "")
    families: dict[str, list[int]] = {}
    for index, (family, name) in enumerate(cases):
        if only in name:
            families.setdefault(family, []).append(index)
    for members in families.values():
        trial.draws.shuffle(members)
    turns = (index for turn in zip_longest(*families.values()) for index in turn)
    return sorted(islice((index for index in turns if index is not None), trial.times))


def in_child(
    folder: Path, cases: Cases, *arguments: Any, seconds: float = SECONDS
) -> Iterator[Finding]:
    """What each case showed.

    Args:
        folder: for logs; the process works in it.
        cases: gives, in the child, what is done and a function that does it, whose result says
            what is wrong, or None.
    """
    results = folder / "results.jsonl"
    child = Child(folder / "log", carry_out, results, cases, arguments, seconds)
    try:
        code = child.wait(TIMEOUT)
    except TimeoutError as error:
        code = -1
        child.log.write_text(str(error))
    lines = results.read_text().splitlines() if results.exists() else []
    begun = "nothing"
    for what, fault in map(json.loads, lines):
        begun = what
        if fault != "begun":
            yield Finding(fault is None, what if fault is None else f"{what}: {fault}")
    if code:
        yield Finding(False, f"the process ended with {code} in {begun}: {child.said()[-1500:]}")


def carry_out(results: Path, cases: Cases, arguments: tuple[Any, ...], seconds: float) -> int:
    """Do the cases in this process, which is changed by it, writing down each result."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, _out_of_time)
    patch.object(os, "fsync").start()  # no power is cut here
    limited = False
    with results.open("a") as file:
        for what, action in cases(*arguments):
            if not limited:
                limit_memory(SPARE)
                limited = True
            file.write(json.dumps([what, "begun"]) + "\n")
            file.flush()
            file.write(json.dumps([what, attempt(action, seconds)]) + "\n")
    return 0


class _OutOfTime(BaseException):
    """Not an Exception, which code that reads a stranger's bytes may well catch."""

    raised = False
    """In this case: `lm` reports what it does not know like a mistake of its own."""


def _out_of_time(number: int, frame: FrameType | None) -> None:
    _OutOfTime.raised = True
    raise _OutOfTime


def attempt(action: Callable[[], str | None], seconds: float) -> str | None:
    """What an action says is wrong, or that it raised, took too long or too much memory."""
    before, _OutOfTime.raised = _peak(), False
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS)
    try:
        fault = action()
    except BaseException as error:
        fault = f"{type(error).__name__}: {error}"
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
    if _OutOfTime.raised:
        return "took too long"
    grown = _peak() - before
    return f"{grown >> 20} MB" if fault is None and grown > MEMORY else fault


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def limit_memory(spare: int) -> None:
    """Give this process so many bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
