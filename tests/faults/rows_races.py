"""The rows of a run directory that two want, and of a clock that is set: I5 and I6."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from fault_plan import Figure, Finding, Trial, row
from processes import Child, run_lm, until
from small_run import RECIPE, directory, outcome, reached_step, resume, train, workplace

from lm.checkpoint import CheckpointFolder

STEPS = 35
LIMIT = f"trainer.max_steps={STEPS}"
DAY = 86_400.0
AHEAD_SECONDS = 0.2
TRIES = 3
"""A race in which one was done before the other began is none, and run again."""


@row(
    "I5",
    "two processes at the same instant in one run directory: resuming it, or making it for a sweep",
    "one goes on to the exact end; the other exits 6, names the owner and changes nothing",
    Figure.fault,
    few=1,
    full=50,
)
def two_runs_in_one_directory(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, begun = _undisturbed(), _begun()
        for k in range(trial.times):
            for attempt in range(TRIES):
                folder = trial.place(f"race-{k}-{attempt}")
                way = _swept if k % 2 else _resumed
                codes, said, run = way(folder, begun)
                if codes != [0, 0]:
                    break
            whole = run.is_dir() and outcome(run) == expected
            ok = sorted(codes) == [0, 6] and whole and _names_the_owner(codes, said, run)
            what = f"race {k} {way.__name__}: exits {codes}, whole {whole}"
            yield Finding(ok, what if ok else f"{what}: {said}"[:3000])


def _undisturbed() -> str:
    """The outcome of a run that nothing happens to."""
    assert train("whole", LIMIT).wait() == 0
    whole = directory("whole")
    assert whole is not None
    return outcome(whole)


def _begun() -> Path:
    """The directory of a run that was killed."""
    child = train("begun", LIMIT)
    assert until(lambda: reached_step(directory("begun")) > 9, child)
    child.send(signal.SIGKILL)
    child.wait()
    begun = directory("begun")
    assert begun is not None
    return begun


Race = tuple[list[int], list[str], Path]


def _resumed(folder: Path, begun: Path) -> Race:
    run = folder / "run"
    shutil.copytree(begun, run)
    return *_race(folder, ["train", f"resume={run}"]), run


def _swept(folder: Path, begun: Path) -> Race:
    recipe = [item for item in RECIPE if not item.startswith("trainer.max_steps=")]
    sweep = ["train", "-m", *recipe, LIMIT, f"hydra.sweep.dir={folder / 'sweep'}"]
    return *_race(folder, sweep), folder / "sweep" / "0"


def _race(folder: Path, arguments: list[str]) -> tuple[list[int], list[str]]:
    """The exit codes, and what was said after the number of the process."""
    at = time.monotonic() + AHEAD_SECONDS
    racers = [Child(folder / f"{k}.log", _at, at, arguments) for k in range(2)]
    codes = [racer.wait() for racer in racers]
    return codes, [f"process {racer.pid}: {racer.said()}" for racer in racers]


def _at(moment: float, arguments: list[str]) -> int:
    time.sleep(max(moment - time.monotonic(), 0))
    return run_lm(arguments)


def _names_the_owner(codes: list[int], said: list[str], run: Path) -> bool:
    """The winner by its number; where it has only made the directory yet, that it is there."""
    winner, loser = said[codes.index(0)], said[codes.index(6)]
    process = winner.partition(":")[0]
    exists = f"{run} exists" in loser and run.name == "0"
    owned = f"{run} is in use by {process} on " in loser
    return (owned or exists) and "Traceback" not in loser and bool(re.search(r"\n  \w+", loser))


@row(
    "I6",
    "the clock is set by a day, on or back, between saves; the run is killed, and goes on",
    "its directory stays its own; the newest checkpoint is that of the highest step; identical",
    Figure.resume,
    few=1,
    full=20,
)
def clock_moved_by_a_day(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected = _undisturbed()
        for k in range(trial.times):
            yield _set_clock(f"clock-{k}", trial.draws, expected)


def _set_clock(name: str, draws: random.Random, expected: str) -> Finding:
    kept = [item for item in RECIPE if not item.startswith("trainer.max_steps=")]
    arguments = ["train", *kept, LIMIT, f"name={name}"]
    child = Child(Path(f"{name}.log"), under_a_moving_clock, arguments, draws.random())
    last = draws.randint(15, 24)  # two checkpoints and more
    assert until(lambda: reached_step(directory(name)) >= last, child), child.said()
    run = directory(name)
    assert run is not None
    child.send(signal.SIGSTOP)  # so that it is there when it is asked for
    second = resume(run)
    refused = second.wait() == 6 and f"in use by process {child.pid} on" in second.said()
    child.send(signal.SIGKILL)
    child.wait()
    steps = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    for step in steps:  # the newest looks like the oldest
        then = time.time() - step * DAY
        os.utime(run / "checkpoints" / f"step-{step:09d}", (then, then))
    again = Child(Path(f"{name}-again"), under_a_moving_clock, ["train", f"resume={run}"], 0.5)
    ended = again.wait()
    newest = f"at step {steps[-1]}\n" in again.said()
    left = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    exact = ended == 0 and outcome(run) == expected
    what = f"set from step {steps} on: second refused {refused}, newest taken {newest},"
    what += f" exit {ended}, exact {exact}, left {left}"
    ok = refused and newest and exact and f"step-{STEPS:09d}" in left
    return Finding(ok, what if ok else f"{what}: {again.said()[-800:]}")


def under_a_moving_clock(arguments: list[str], seed: float) -> int:
    """`lm …`, with the clock set by a day at each save, so that files look older or newer."""
    draws, real, save = random.Random(seed), time.time, CheckpointFolder.save
    offset = 0.0

    def saving(self: CheckpointFolder, *given: object, **named: object) -> Path:
        nonlocal offset
        folder = save(self, *given, **named)  # type: ignore[arg-type]
        offset -= draws.choice((DAY, DAY, -DAY))
        now = real() + offset
        for path in (*folder.iterdir(), folder, self.path.parent / "lock"):
            os.utime(path, (now, now))
        return folder

    with (
        patch.object(time, "time", lambda: real() + offset),
        patch.object(CheckpointFolder, "save", saving),
    ):
        return run_lm(arguments)
