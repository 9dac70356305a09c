"""Rows of signals to runs that two processes train together: S2 and S4b."""

import json
import signal
import time
from collections.abc import Iterator

from agents import train
from fault_plan import Figure, Finding, Trial, row
from processes import until
from rows_processes import continued, some_moment, strike, whole_job
from rows_signals import INTERRUPTED, SIGNALS, STOPPED
from small_run import directory, reached_step, workplace


@row(
    "S2",
    "SIGTERM, SIGINT or SIGUSR1 to one of two processes at a random moment",
    "both stop at the same step, saved; exit 75 (torchrun: 1) or 0 when it was done, and the"
    " summary says so; resumed it is identical; no process or file is left behind",
    Figure.resume,
    few=0,
    full=12,
)
def a_signal_to_one_process(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected = whole_job()
        for k in range(trial.times):
            name, number, torchrun = f"stopped-{k}", SIGNALS[k % 3], k % 2 == 1
            job = train(name, torchrun=torchrun)
            until(lambda name=name: reached_step(directory(name)), job.agent)
            some_moment(job, name, trial.draws, after=1)
            struck = strike(job, trial.draws, number)
            code, left, run = job.wait(), job.left_behind(), directory(name)
            assert run is not None
            status = json.loads((run / "summary.json").read_text())["status"]
            exact, reached, saved_at = continued(name, expected)
            ended = {"stopped": 1 if torchrun else STOPPED, "done": 0}
            ok = exact and code == ended.get(status, -1) and reached == saved_at and not left
            what = (
                f"{number.name} to process {struck} of {'torchrun' if torchrun else 'lm'} at step"
                f" {reached}, saved {saved_at}: exit {code}, {status}, exact {exact}, left {left}"
            )
            yield Finding(ok, what if ok else f"{what}: {job.agent.said()[-1500:]}")


@row(
    "S4b",
    "a second SIGINT right after the first to lm that trains in two processes",
    "all have left within 2 s; exit 75, 130 or 0; resumed it is identical; no process or file is"
    " left behind",
    Figure.resume,
    few=0,
    full=20,
)
def two_signals_to_the_agent(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected = whole_job()
        for k in range(trial.times):
            name = f"interrupted-{k}"
            job = train(name)
            until(lambda name=name: reached_step(directory(name)), job.agent)
            some_moment(job, name, trial.draws, after=1)
            job.agent.send(signal.SIGINT)
            time.sleep(trial.draws.uniform(0, 0.05))
            started = time.perf_counter()
            job.agent.send(signal.SIGINT)
            code = job.wait()
            seconds, left = time.perf_counter() - started, job.left_behind()
            exact, reached, _ = continued(name, expected)
            ok = exact and code in (STOPPED, INTERRUPTED, 0) and seconds <= 2 and not left
            what = f"at step {reached}: exit {code} after {seconds:.2f} s"
            seen = f"{what}, exact {exact}, left {left}"
            yield Finding(ok, seen if ok else f"{seen}: {job.agent.said()[-1500:]}")
