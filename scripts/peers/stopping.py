"""Rows of runs that are stopped, killed and continued."""

import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peers.host import Process
from peers.plan import Answer, NotApplicableError, Trial, row
from peers.programs import SAVE_EVERY, Program

KEPT = "what was trained until then is saved"
TOLD = "the exit code is not that of a finished run"
RESUMED = "a resume goes on from it to the end"
SAME = "with the same final weights as without the stop, bit for bit"


@dataclass(frozen=True)
class Whole:
    """The run that nothing happens to."""

    final: Path
    digest: str
    seconds: float
    steps: int


def whole_run(program: Program, trial: Trial, settings: Mapping[str, Any] | None = None) -> Whole:
    """Run it, after one that fills the program's caches."""
    assert program.train(trial.place("warm"), settings).wait() == 0
    place = trial.place("whole")
    started = time.perf_counter()
    done = program.train(place, settings)
    assert done.wait() == 0, done.said()
    seconds = time.perf_counter() - started
    (final,) = program.finals(place)
    return Whole(final, program.probe(final)[0].digest, seconds, done.steps)


def _stopped(number: signal.Signals, due: int, program: Program, trial: Trial) -> Iterator[Answer]:
    whole = whole_run(program, trial)
    done = 0
    for k in range(10 * trial.times):
        place = trial.place(k)
        process = program.train(place)
        time.sleep(trial.draws.uniform(0, whole.seconds))
        if not process.running:  # faster than the run that was timed
            continue
        process.send(number)
        if process.wait() == 0 and process.steps == whole.steps:  # after its last step
            continue
        yield _after(program, place, process, whole, due=due)
        done += 1
        if done == trial.times:
            return
    raise AssertionError("the signal hardly ever met a run")


def _after(
    program: Program,
    place: Path,
    process: Process,
    whole: Whole,
    *,
    due: int,
    settings: Mapping[str, Any] | None = None,
) -> Answer:
    """What is left after a stop, and what a resume makes of it.

    Args:
        due: the step from which on there has to be something to go on from.
    """
    code, reached = process.wait(), process.steps
    held: dict[str, bool | None] = {"told": code != 0}
    seen = f"exit {code}" + (", traceback" if process.traceback else "")
    found = program.checkpoints(place)
    if not found and reached < due:
        return Answer(held, seen)
    newest = program.probe(*found[:1])
    saved = (newest[0].step or 0) if newest and program.resumes else 0
    lost = max(0, reached - saved)
    # The step that was under way counts as begun, and is no loss.
    held.update(kept=lost <= 1, resumed=False, same=None)
    if program.resumes:
        again = program.resume(place, settings)
        held["resumed"] = again is not None and again.wait() == 0
        held["same"] = whole.digest in program.digests(place)
    return Answer(held, seen, {"steps_lost": float(lost)})


row("sigterm", "SIGTERM at a random moment", 20, kept=KEPT, told=TOLD, resumed=RESUMED, same=SAME)(
    partial(_stopped, signal.SIGTERM, 2)
)
row(
    "sigint",
    "SIGINT (Ctrl-C) at a random moment",
    20,
    kept=KEPT,
    told=TOLD,
    resumed=RESUMED,
    same=SAME,
)(partial(_stopped, signal.SIGINT, 2))
row(
    "kill",
    "kill -9 at a random moment",
    20,
    resumed="a resume goes on from the last save",
    same=SAME,
)(partial(_stopped, signal.SIGKILL, SAVE_EVERY + 2))


@row(
    "state",
    "kill -9 amid an epoch, dropout 0: the recurrent state is all that a resume could forget",
    5,
    same=SAME,
)
def recurrent_state(program: Program, trial: Trial) -> Iterator[Answer]:
    if not program.resumes:
        raise NotApplicableError("cannot resume")
    settings = {"dropout": 0.0}
    whole = whole_run(program, trial, settings)
    epoch = whole.steps // 3
    for k in range(trial.times):
        place = trial.place(k)
        process = program.train(place, settings)
        begun = trial.draws.randrange(SAVE_EVERY + 2, epoch - 1)
        process.reach(begun)
        process.send(signal.SIGKILL)
        answer = _after(program, place, process, whole, due=0, settings=settings)
        *_, last = program.probe(whole.final, *program.finals(place))
        far = {} if last.difference is None else {"weights_moved": last.difference}
        yield Answer(answer.held, measures=far)


@row("seed", "the same seed again", 3, same="the same final weights, bit for bit")
def same_seed(program: Program, trial: Trial) -> Iterator[Answer]:
    whole = whole_run(program, trial)
    for k in range(trial.times):
        place = trial.place(k)
        assert program.train(place).wait() == 0
        yield Answer({"same": program.digests(place) == [whole.digest]})
