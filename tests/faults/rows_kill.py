"""Rows of runs that are killed: R2."""

import signal
import time
from collections.abc import Iterator

from campaign import Figure, Finding, Trial, row
from small_run import (
    SAVE_EVERY,
    directory,
    outcome,
    reached_step,
    resume,
    saved_step,
    train,
    workplace,
)


@row(
    "R2",
    "kill -9 at a random moment of a run, then resume",
    "identical to the uninterrupted run; at most one save interval is done again",
    Figure.resume,
    few=2,
    full=50,
)
def killed_at_a_random_moment(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, seconds = whole_run()
        for k in range(trial.times):
            yield _killed(f"killed-{k}", trial.draws.uniform(0, seconds), expected)


def whole_run() -> tuple[str, float]:
    """The outcome of the run that nothing happens to, and how long it takes."""
    assert train("warm-up").wait() == 0  # prepares the tokens and compiles what is compiled
    started = time.perf_counter()
    child = train("whole")
    assert child.wait() == 0, child.said()
    run = directory("whole")
    assert run is not None
    return outcome(run), time.perf_counter() - started


def _killed(name: str, moment: float, expected: str) -> Finding:
    child = train(name)
    time.sleep(moment)
    child.send(signal.SIGKILL)
    child.wait()
    run = directory(name)
    reached, saved = reached_step(run), saved_step(run)
    started = time.perf_counter()
    if run is None or saved is None:  # killed before its first save: nothing to go on from
        name = f"{name}-again"
        code = train(name).wait()
    else:
        code = resume(run).wait()
    measures = {
        "recovery_seconds": time.perf_counter() - started,
        "steps_lost": float(reached - (saved or 0)),
    }
    run = directory(name)
    same = code == 0 and run is not None and outcome(run) == expected
    what = f"kill -9 after {moment:.2f} s at step {reached}, saved {saved}: exit {code}"
    return Finding(same and measures["steps_lost"] <= SAVE_EVERY, what, measures)
