"""Rows of numbers that are not finite, or so large that their norm is not."""

import math
from collections.abc import Iterator
from typing import Any

from peers.plan import Answer, Trial, row
from peers.programs import Program
from peers.stopping import Whole, whole_run


def _runs(program: Program, trial: Trial, **sabotage: Any) -> Iterator[tuple[Any, ...]]:
    """Runs with something done at a step drawn from the whole run: step, place, process, code."""
    whole = whole_run(program, trial)
    for k in range(trial.times):
        place = trial.place(k)
        at = trial.draws.randrange(2, whole.steps - 2)
        updates = place / "updates.txt"
        options = {"at": at, "updates": str(updates), **sabotage}
        process = program.train(place, extra=program.guards, sabotage=options)
        yield whole, at, place, process, process.wait()


@row(
    "nan_weights", "the weights become NaN at a random step", 10,
    refused="no checkpoint of them is written",
    left="a finite checkpoint from before is left",
    said="the exit code is not 0",
)  # fmt: skip
def nan_weights(program: Program, trial: Trial) -> Iterator[Answer]:
    for whole, at, place, process, code in _runs(program, trial, what="weights", value="nan"):
        finite = [found.finite for found in program.probe(*program.everything(place))]
        left = any(finite) if at > _first_save(program, whole) else None
        seen = f"exit {code}" + (", traceback" if process.traceback else "")
        yield Answer({"refused": all(finite), "left": left, "said": code != 0}, seen)


def _first_save(program: Program, whole: Whole) -> int:
    return program.save_every or math.ceil(whole.steps / 3)


@row(
    "nan_gradient",
    "the gradient of one step is NaN",
    10,
    on="training goes on with finite weights",
    said="or at least the exit code is not 0",
)
def nan_gradient(program: Program, trial: Trial) -> Iterator[Answer]:
    for _, _, place, process, code in _runs(program, trial, what="gradient", value="nan"):
        last = float((place / "updates.txt").read_text().split()[-1])
        on = code == 0 and math.isfinite(last)
        seen = f"exit {code}" + (", traceback" if process.traceback else "")
        yield Answer({"on": on, "said": on or code != 0}, seen)


@row(
    "huge_gradient", "the gradient of one step is 1e20, clipping to norm 0.25", 5,
    applied="the step moves the weights by what clipping allows",
)  # fmt: skip
def huge_gradient(program: Program, trial: Trial) -> Iterator[Answer]:
    for _, at, place, _, code in _runs(program, trial, what="gradient", value="1e20"):
        moved = float((place / "updates.txt").read_text().split()[at - 1])
        allowed = 0.25 * 5  # the norm times the learning rate
        right = math.isclose(moved, allowed, rel_tol=0.01)
        seen = "no change at all" if moved == 0 else "as allowed" if right else f"{moved:.3g}"
        yield Answer({"applied": right}, f"{seen}, exit {code}")
