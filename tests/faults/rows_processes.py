"""Rows of runs that several processes train together: R4, R4b, S6 and S7."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

from agents import Job, train
from fault_plan import Figure, Finding, Trial, row
from processes import until
from small_run import (
    SAVE_EVERY,
    STEPS,
    directory,
    outcome,
    reached_step,
    saved_step,
    workplace,
)

LOST = 9
PATIENCE = 3.0
GRACE = 35.0
TIMEOUT = f"runtime.timeout_seconds={PATIENCE:g}"
STARTING_SECONDS = 1.0


@cache
def whole_job() -> str:
    """The outcome of the run by two processes that nothing happens to."""
    job = train("whole-job")
    assert job.wait() == 0, job.agent.said()
    run = directory("whole-job")
    assert run is not None
    return outcome(run)


def some_moment(job: Job, name: str, draws: Random, *, after: int = 0, before: int = STEPS) -> None:
    """Wait for a random moment: of starting, one time in four, or of some step."""
    until(lambda: len(job.workers()) > 1, job.agent)
    if not after and draws.random() < 0.25:
        time.sleep(draws.uniform(0, STARTING_SECONDS))
        return
    step = draws.randrange(after, before)
    until(lambda: reached_step(directory(name)) >= step, job.agent)
    time.sleep(draws.uniform(0, 0.02))


def strike(job: Job, draws: Random, number: signal.Signals) -> int:
    """Send a signal to one of the processes; its number, or 0 where they have ended."""
    workers = job.workers()
    if not workers:
        return 0
    struck = draws.choice(workers)
    with suppress(ProcessLookupError):
        os.kill(struck, number)
    return struck


def steps_done_again(said: str) -> float:
    """The most steps that were done again after the job was started anew."""
    reached, most = 0, 0
    for found in re.finditer(r"^step (\d+) ", said, re.MULTILINE):
        most = max(most, reached - int(found[1]) + 1)
        reached = int(found[1])
    return float(most)


def every_step_once(run: Path) -> bool:
    """Whether the run's metrics have the training loss of each step, in order."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "train/loss" in line] == list(range(1, STEPS + 1))


def survived(job: Job, name: str, code: int, what: str) -> Finding:
    """Whether a job that restarted came to the end of the undisturbed one, by itself."""
    run, left, said = directory(name), job.left_behind(), job.agent.said()
    exact = code == 0 and run is not None and outcome(run) == whole_job()
    once = run is not None and every_step_once(run)
    again = steps_done_again(said)
    ok = exact and once and again <= SAVE_EVERY and not left
    seen = f"{what}: exit {code}, exact {exact}, {again:.0f} steps again, once {once}, left {left}"
    return Finding(ok, seen if ok else f"{seen}: {said[-1500:]}", {"steps_lost": again})


@row(
    "R4",
    "kill -9 of one of two processes at a random moment, with runtime.restarts=1",
    "no hang; it goes on by itself, identical; at most one save interval is done again; each step"
    " is logged once, no process or file is left behind",
    Figure.resume,
    few=1,
    full=50,
)
def one_process_killed(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        whole_job()
        for k in range(trial.times):
            name = f"killed-{k}"
            job = train(name, "runtime.restarts=1")
            some_moment(job, name, trial.draws)
            struck = strike(job, trial.draws, signal.SIGKILL)
            started = time.perf_counter()
            until(lambda job=job, pid=struck: pid not in job.workers(), job.agent)
            reached = reached_step(directory(name))
            until(lambda name=name, step=reached: reached_step(directory(name)) > step, job.agent)
            seconds = time.perf_counter() - started
            found = survived(job, name, job.wait(), f"process {struck} at step {reached}")
            yield Finding(found.ok, found.what, {**found.measures, "restart_seconds": seconds})


def continued(name: str, expected: str, *extra: str) -> tuple[bool, int, int | None]:
    """Whether a run, resumed, comes to the expected end; how far it had come, and was saved."""
    run = directory(name)
    reached, saved_at = reached_step(run), saved_step(run)
    if run is None or saved_at is None:  # nothing to go on from
        name = f"{name}-again"
        job = train(name, *extra)
    else:
        log = Path(f"{name}-resumed.log")
        job = Job("train", f"resume={run}", "runtime.processes=2", *extra, log=log)
    code = job.wait()
    run = directory(name)
    return code == 0 and run is not None and outcome(run) == expected, reached, saved_at


@row(
    "R4b",
    "kill -9 of the process that started the others, at a random moment of the first half",
    "the others save and leave before they are done; resumed it is identical",
    Figure.resume,
    few=0,
    full=10,
)
def the_agent_killed(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected = whole_job()
        for k in range(trial.times):
            name = f"orphaned-{k}"
            job = train(name)
            some_moment(job, name, trial.draws, before=STEPS // 2)
            job.agent.send(signal.SIGKILL)
            job.wait()
            left = [what for what in job.left_behind() if what.startswith("process")]
            exact, reached, saved_at = continued(name, expected)
            ok = exact and not left and reached == (saved_at or 0) < STEPS
            what = f"at step {reached}, saved {saved_at}: exact {exact}, left {left}"
            yield Finding(ok, what if ok else f"{what}: {job.agent.said()[-1500:]}")


@row(
    "S6",
    "SIGSTOP of one of two processes at a random moment, with runtime.timeout_seconds=3",
    "the job ends within 38 s, exit 9; resumed it is identical; no process or file is left behind",
    Figure.resume,
    few=0,
    full=4,
)
def one_process_stands_still(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected = whole_job()
        for k in range(trial.times):
            name = f"still-{k}"
            job = train(name, TIMEOUT)
            some_moment(job, name, trial.draws)
            struck, started = strike(job, trial.draws, signal.SIGSTOP), time.perf_counter()
            code = job.wait()
            seconds, left = time.perf_counter() - started, job.left_behind()
            exact, reached, _ = continued(name, expected)
            ok = exact and code == LOST and seconds <= PATIENCE + GRACE and not left
            what = f"process {struck} at step {reached}: exit {code} after {seconds:.1f} s"
            seen = f"{what}, exact {exact}, left {left}"
            measures = {"standstill_seconds": seconds}
            yield Finding(ok, seen if ok else f"{seen}: {job.agent.said()[-1500:]}", measures)


@row(
    "S7",
    "one process killed, one that aborts and one that stands still, in one job of three restarts",
    "as R4: it goes on by itself, identical",
    Figure.resume,
    few=0,
    full=3,
)
def three_faults(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        whole_job()
        for k in range(trial.times):
            name, numbers = f"thrice-{k}", [signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP]
            trial.draws.shuffle(numbers)
            job = train(name, "runtime.restarts=3", TIMEOUT)
            for step, number in zip((10, 40, 80), numbers, strict=True):
                until(lambda name=name, at=step: reached_step(directory(name)) >= at, job.agent)
                struck = strike(job, trial.draws, number)
                until(lambda job=job, pid=struck: pid not in job.workers(), job.agent)
            listed = ", ".join(number.name for number in numbers)
            yield survived(job, name, job.wait(), listed)
