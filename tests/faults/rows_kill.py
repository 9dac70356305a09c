"""Rows of runs that are killed: R2, R3, R10; and the same run twice: D1."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkpoints import KEEP, example
from fault_plan import Figure, Finding, Trial, log_lines, row
from processes import Child, until
from small_run import (
    SAVE_EVERY,
    STEPS,
    directory,
    outcome,
    reached_step,
    resume,
    saved_step,
    train,
    whole_run,
    workplace,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lm.checkpoint import CheckpointFolder, verifies

BACKGROUND = "trainer.save_in_background=true"


@row(
    "R2",
    "kill -9 at a random moment of a run, then resume",
    "identical to the uninterrupted run; at most one save interval is done again",
    Figure.resume,
    few=1,
    full=50,
)
def killed_at_a_random_moment(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, seconds = whole_run()
        for k in range(trial.times):
            moment = trial.draws.uniform(0, seconds)
            yield _killed(f"killed-{k}", moment, expected, most_lost=SAVE_EVERY)


@row(
    "R2b",
    "the same while checkpoints are written in the background",
    "identical; at most two save intervals are done again",
    Figure.resume,
    few=1,
    full=50,
)
def killed_while_saving_in_the_background(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, seconds = whole_run()
        for k in range(trial.times):
            moment, lost = trial.draws.uniform(0, seconds), 2 * SAVE_EVERY
            yield _killed(f"killed-{k}", moment, expected, BACKGROUND, most_lost=lost)


def _killed(name: str, moment: float, expected: str, *extra: str, most_lost: int) -> Finding:
    child = train(name, *extra)
    time.sleep(moment)
    child.send(signal.SIGKILL)
    child.wait()
    after = recovered(name, expected)
    what = f"kill -9 after {moment:.2f} s at step {after.reached}: {after.measures}, {after.exact}"
    return Finding(after.exact and after.measures["steps_lost"] <= most_lost, what, after.measures)


@dataclass(frozen=True, slots=True)
class Recovery:
    """An interrupted run that was brought to its end.

    Attributes:
        run: its directory, or that of the run that took its place.
        reached: the step at which it was interrupted.
        exact: the outcome is the expected one.
    """

    run: Path | None
    reached: int
    exact: bool
    measures: dict[str, float]


def recovered(name: str, expected: str) -> Recovery:
    """Resume an interrupted run, or start it again where it had saved nothing."""
    run = directory(name)
    reached, saved_at = reached_step(run), saved_step(run)
    started = time.perf_counter()
    if run is None or saved_at is None:  # before its first save: nothing to go on from
        name = f"{name}-again"
        child = train(name)
    else:
        child = resume(run)
    until(lambda: reached_step(directory(name)) > reached, child)
    seconds = time.perf_counter() - started
    code = child.wait()
    run = directory(name)
    exact = code == 0 and run is not None and outcome(run) == expected
    lost = float(max(0, reached - (saved_at or 0)))
    measures = {"recovery_seconds": seconds, "steps_lost": lost}
    return Recovery(run, reached, exact, measures)


def save_on_and_on(folder: str, acknowledged: str) -> int:
    """Save checkpoint after checkpoint, and say so each time one is saved."""
    checkpoints = CheckpointFolder(Path(folder))
    checkpoints.open_for_writing()
    with Path(acknowledged).open("a") as file:
        for step in range(1, 1_000_000):
            checkpoints.save(step, example(step, size=100_000), best=step % 3 == 0, keep=KEEP)
            file.write(f"{step}\n")
            file.flush()
    return 0


@row(
    "R3",
    "kill -9 of a process that saves one checkpoint after the other",
    "the newest that was acknowledged, or a later one, verifies; no debris after the next start",
    Figure.fault,
    few=3,
    full=150,
)
def killed_inside_a_save(trial: Trial) -> Iterator[Finding]:
    for k in range(trial.times):
        place = trial.place(k)
        folder, acknowledged = place / "checkpoints", place / "acknowledged"
        child = Child(place / "log", save_on_and_on, str(folder), str(acknowledged))
        until(lambda file=acknowledged: file.exists() and file.stat().st_size, child)
        time.sleep(trial.draws.uniform(0, 0.2))
        child.send(signal.SIGKILL)
        child.wait()
        done = int(acknowledged.read_text().split()[-1])
        checkpoints = CheckpointFolder(folder)
        checkpoints.open_for_writing()
        with log_lines():
            newest = checkpoints.newest_good()[1].state["progress"]["step"]
            good = sum(map(verifies, checkpoints.newest_first()))
        ok = newest >= done and good >= min(done, KEEP) and not list(folder.glob(".*"))
        yield Finding(ok, f"killed after step {done}: {newest} verifies, {good} in all")


@row(
    "R10",
    "kill -9 at a random moment, resume, then read the run as TensorBoard does",
    "every step of every scalar exactly once, and the values that metrics.jsonl has",
    Figure.fault,
    few=1,
    full=20,
)
def tensorboard_after_a_crash(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, seconds = whole_run()
        for k in range(trial.times):
            child = train(f"killed-{k}")
            time.sleep(trial.draws.uniform(seconds / 2, seconds))
            child.send(signal.SIGKILL)
            child.wait()
            after = recovered(f"killed-{k}", expected)
            steps = logged_steps(after.run) if after.run else []
            ok = after.exact and steps == list(range(1, STEPS + 1))
            yield Finding(ok, f"killed at {after.reached}: {steps}")


def logged_steps(run: Path) -> list[int]:
    """The steps at which TensorBoard shows the training loss."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


@row(
    "D1",
    "the same configuration and seed twice, in two processes, on one thread and on two",
    "identical in every tensor",
    Figure.resume,
    few=1,
    full=20,
)
def the_same_seed_twice(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        for k in range(trial.times):
            threads, outcomes = 1 + k % 2, set()
            seed = f"seed={trial.draws.randrange(1000)}"
            for name in (f"{k}-first", f"{k}-second"):
                assert train(name, f"runtime.threads={threads}", seed).wait() == 0
                run = directory(name)
                assert run is not None
                outcomes.add(outcome(run))
            yield Finding(len(outcomes) == 1, f"{threads} threads: {outcomes}")
