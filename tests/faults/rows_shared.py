"""Rows of processes that do not have the same: R12, N1b (as threads of one process) and N5."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from agents import train
from answers import cause_and_remedy
from fault_plan import Figure, Finding, Trial, log_lines, row
from harness import Recipe
from rows_numbers import BAD, RATES, state_of
from rows_processes import continued, whole_job
from small_run import STEPS, workplace
from together import all_of, together
from torch import Tensor

from lm.data.streams import Window
from lm.metrics import tags
from lm.optim import OPTIMIZERS, SCHEDULES
from lm.runtime.processes import ALONE, Processes
from lm.training.loop import Trainer

SIZES = (2, 1, 4, 2)
NEAR = 1e-5
SECONDS = 10.0


@row(
    "R12",
    "a run of eight streams by two processes, then by one, four and two, stopped at random steps",
    "each token is trained on once, in its step; weights within 1e-5 of the undisturbed run's by"
    " one process; each change is said to be not bit-exact",
    Figure.fault,
    few=1,
    full=20,
)
def other_numbers_of_processes(trial: Trial) -> Iterator[Finding]:
    for k in range(trial.times):
        recipe = Recipe(
            trial.place(k), steps=24, trainer={"window": 6, "batch_size": 8, "valid_streams": 4}
        )
        whole = _stage(recipe, "straight", 1, None)
        stops = [*sorted(trial.draws.sample(range(1, recipe.steps), len(SIZES) - 1)), None]
        stages = [
            _stage(recipe, "elastic", size, stop) for size, stop in zip(SIZES, stops, strict=True)
        ]
        seen = {place: read for stage in stages for place, read in stage.seen.items()}
        once = seen == whole.seen and len(seen) == sum(len(stage.seen) for stage in stages)
        alike = all(stage.alike for stage in stages)
        last = stages[-1].weights
        apart = max(float((last[name] - whole.weights[name]).abs().max()) for name in last)
        said = [line for stage in stages for line in stage.said if "not bit-exact: proc" in line]
        ok = once and alike and apart <= NEAR and len(said) == len(SIZES) - 1
        what = f"stopped after {stops[:-1]}: {apart:.1e} apart, once {once}, alike {alike}, {said}"
        yield Finding(ok, what, {"elastic_difference": apart})


@dataclass(frozen=True, slots=True)
class _Stage:
    """What some processes did until they stopped.

    Attributes:
        seen: the tokens that were read, by step and stream.
        said: each line once.
        alike: they came to the same end.
    """

    seen: dict[tuple[int, int], list[int]]
    weights: dict[str, Tensor]
    said: list[str]
    alike: bool


def _stage(recipe: Recipe, name: str, size: int, stop: int | None) -> _Stage:
    recipe.prepared()  # or two threads would write the text at once
    seen: dict[tuple[int, int], list[int]] = {}
    kept: list[Trainer] = []
    whole = Trainer.train

    def train(self: Trainer, window: Window) -> None:
        for column, stream in enumerate(self.streams.own):
            place = (self.progress.step, stream)
            assert place not in seen, f"{place} was read twice"
            seen[place] = [
                *window.tokens[:, column].tolist(),
                *window.targets[-1:, column].tolist(),
            ]
        whole(self, window)

    def part(processes: Processes) -> str:
        return recipe.run(name, stop_after=stop, spoil=kept.append, processes=processes)

    with pytest.MonkeyPatch.context() as patch, log_lines() as lines:
        patch.setattr(Trainer, "train", train)
        digests = [part(ALONE)] if size == 1 else all_of(together(size, part, seconds=SECONDS))
        weights = {name: tensor.detach() for name, tensor in kept[0].model.tensors().items()}
        return _Stage(seen, weights, list(dict.fromkeys(lines)), len(set(digests)) == 1)


@row(
    "N1b",
    "a gradient that is NaN or infinite in one step of one of two processes",
    "both skip the step (parameters, optimiser, recurrent state as before), counted and logged;"
    " they stay alike",
    Figure.fault,
    few=2,
    full=30,
)
def one_bad_step_of_one_process(trial: Trial) -> Iterator[Finding]:
    for k in range(trial.times):
        name, value = trial.draws.choice(list(OPTIMIZERS)), trial.draws.choice(BAD)
        recipe = Recipe(
            trial.place(k),
            optim=OPTIMIZERS[name](lr=RATES.get(name, 0.01)),
            schedule=SCHEDULES["constant"](),
            steps=9,
            trainer={"log_every": 1},
        )
        rank, number = trial.draws.randrange(2), trial.draws.randrange(100)
        yield _one_bad_step(recipe, f"{name}, {value} in process {rank}", value, rank, number)


def _one_bad_step(
    recipe: Recipe, what: str, value: float, rank: int, number: int, bad: int = 6
) -> Finding:
    recipe.prepared()
    states: dict[tuple[int, int], dict[str, Tensor]] = {}
    kept: list[Trainer] = []
    whole = Trainer.train

    def train(self: Trainer, window: Window) -> None:
        states[self.processes.rank, self.progress.step] = state_of(self)
        whole(self, window)

    def spoil(trainer: Trainer) -> None:
        kept.append(trainer)
        parameters = list(trainer.train_step.parameters.values())
        if trainer.processes.rank == rank:
            parameters[number % len(parameters)].register_hook(
                lambda gradient: gradient * value if trainer.progress.step == bad else None
            )

    with pytest.MonkeyPatch.context() as patch, log_lines():
        patch.setattr(Trainer, "train", train)
        digests = all_of(together(2, partial(_in_process, recipe, spoil), seconds=SECONDS))
    unchanged = all(_same(states[r, bad], states[r, bad + 1]) for r in range(2))
    went_on = not any(_same(states[r, bad + 1], states[r, bad + 2]) for r in range(2))
    skipped = {int(trainer.statistics.sums["skipped"]) for trainer in kept}
    logged = [line[tags.SKIPPED_STEPS] for line in _metrics(kept[0]) if tags.SKIPPED_STEPS in line]
    told = logged == [0] * bad + [1] * (recipe.steps - bad)
    alike = len(set(digests)) == 1
    ok = unchanged and went_on and skipped == {1} and told and alike
    seen = f"unchanged {unchanged}, on {went_on}, {skipped} counted, logged {logged}, alike {alike}"
    return Finding(ok, f"{what}: {seen}")


def _in_process(recipe: Recipe, spoil: Callable[[Trainer], None], processes: Processes) -> str:
    return recipe.run("run", spoil=spoil, processes=processes)


def _same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(some[name].equal(others[name]) for name in some)


def _metrics(trainer: Trainer) -> list[dict[str, float]]:
    text = (trainer.directory.path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@row(
    "N5",
    "one weight of one of two processes changed in its last bit at a random step",
    "exit 9 in two lines within trainer.log_every=10 steps; the last checkpoint is of before:"
    " resumed it is identical; no process or file is left behind",
    Figure.fault,
    few=0,
    full=10,
)
def one_weight_perturbed(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected = whole_job()
        for k in range(trial.times):
            name, step, rank = f"perturbed-{k}", trial.draws.randrange(1, STEPS - 10), k % 2
            plugin = Path(f"perturb_{k}.py")
            plugin.write_text(PERTURBING.format(rank=rank, step=step, number=k))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LM_PLUGINS", plugin.stem)
                job = train(name, "trainer.log_every=10")
            code, left, said = job.wait(), job.left_behind(), job.agent.said()
            found = re.search(r"different weights after step (\d+)", said)
            late = int(found[1]) - step if found else -1
            exact, _, saved_at = continued(name, expected, "trainer.log_every=1")
            ok = code == 9 and 0 <= late <= 10 and cause_and_remedy(said) and exact and not left
            what = f"process {rank} at step {step}: exit {code} after {late} more, saved {saved_at}"
            seen = f"{what}, exact {exact}, left {left}"
            yield Finding(bool(ok), seen if ok else f"{seen}: {said[-1500:]}")


PERTURBING = """\
import torch

from lm.training.loop import Trainer

whole = Trainer.agree


def agree(self):
    whole(self)
    if self.processes.rank == {rank} and self.progress.step == {step}:
        parameters = list(self.model.parameters())
        weights = parameters[{number} % len(parameters)].data.view(-1)
        weights[-1] = torch.nextafter(weights[-1], torch.tensor(9.0))


Trainer.agree = agree
"""
