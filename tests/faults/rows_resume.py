"""Rows of runs that are stopped and resumed in one process: R1, R5 to R9, R11."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from itertools import product

import pytest
from fault_plan import Figure, Finding, Trial, log_lines, row
from harness import Recipe
from small_run import RECIPE, directory, outcome, workplace

from lm.cli import main
from lm.data.streams import Window
from lm.optim import OPTIMIZERS, SCHEDULES
from lm.optim.base import Optimizers
from lm.runtime.randomness import Noise
from lm.training import step as step_module
from lm.training.loop import Trainer

STEPS = 60
RATES = {"sgd": 1.0, "adadelta": 1.0, "asgd": 1.0, "muon": 0.02, "adafactor": 0.01}
Spoil = Callable[[Trainer], None]


def untouched(trainer: Trainer) -> None:
    """Leave the resumed run as it was saved."""


def interrupted(recipe: Recipe, stops: list[int], spoil: Spoil = untouched) -> str:
    """The digest of a run that was stopped after each of these steps."""
    for stop in stops:
        recipe.run("stopped", stop_after=stop)
    return recipe.run("stopped", spoil=spoil)


def long_recipe(trial: Trial, name: object) -> Recipe:
    """Sixty steps, ten epochs and more, with a validation every seventh step."""
    return Recipe(trial.place(name), steps=STEPS, trainer={"valid_every": 7})


@row(
    "R1",
    f"stop and resume at a step, each of 1 to {STEPS}",
    "identical to the uninterrupted run",
    Figure.resume,
    few=3,
    full=STEPS,
)
def stopped_at_each_step(trial: Trial) -> Iterator[Finding]:
    expected = long_recipe(trial, "straight").run("straight")
    for stop in sorted(trial.draws.sample(range(1, STEPS + 1), trial.times)):
        same = interrupted(long_recipe(trial, stop), [stop]) == expected
        yield Finding(same, f"stopped after step {stop}")


def forget_state(trainer: Trainer) -> None:
    """Begin the next window with the initial recurrent state."""
    assert trainer.state is not None
    trainer.state = None


def forget_position(trainer: Trainer) -> None:
    """Begin the text anew."""
    assert trainer.progress.position
    trainer.progress.position = 0


def forget_schedule(trainer: Trainer) -> None:
    """Anneal as if there had been no validation."""
    assert trainer.schedule.multiplier(0) < 1
    fresh = Recipe(trainer.directory.path).schedule
    trainer.schedule = fresh.build(total_steps=14, epoch_of=lambda step: step // 5)


def forget_optimizer(trainer: Trainer) -> None:
    """Begin with no momentum."""
    for guard in trainer.optimizers.guards:
        assert guard.optimizer.state
        for state in guard.optimizer.state.values():
            state["momentum_buffer"].zero_()


def forget_noise(trainer: Trainer) -> None:
    """Draw the noise of the first steps again."""
    done = trainer.progress.step

    def restarted(seed: int, step: int, streams: int) -> Noise:
        return Noise(seed, step - done, streams)

    step_module.Noise = restarted  # type: ignore[assignment, misc]


FORGOTTEN = (forget_state, forget_position, forget_schedule, forget_optimizer, forget_noise)


@row(
    "R5",
    "leave out one of five states: recurrent state, position, schedule, optimiser, noise",
    "the comparison that R1 makes fails for each",
    Figure.fault,
    few=len(FORGOTTEN),
    full=len(FORGOTTEN),
)
def states_left_out(trial: Trial) -> Iterator[Finding]:
    expected = Recipe(trial.place("straight")).run("straight")
    for spoil in FORGOTTEN:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_module, "Noise", Noise)  # put back what a spoiler replaces
            noticed = interrupted(Recipe(trial.place(spoil.__name__)), [7], spoil) != expected
        yield Finding(noticed, f"{spoil.__name__} went unnoticed")


@row(
    "R6",
    "resume five times within one epoch, and at its end",
    "identical; each token is seen exactly once",
    Figure.resume,
    few=1,
    full=20,
)
def resumed_within_an_epoch(trial: Trial) -> Iterator[Finding]:
    for k in range(trial.times):
        recipe = Recipe(trial.place(k), steps=14, trainer={"window": 3, "batch_size": 8})
        per_epoch = recipe.build("probe").streams.windows_per_epoch
        assert per_epoch > 7, "no room for five stops in an epoch"
        recipe.steps = per_epoch + 3
        stops = [*sorted(trial.draws.sample(range(1, per_epoch), 5)), per_epoch]
        expected, straight = _with_positions(partial(recipe.run, "straight"))
        found, seen = _with_positions(partial(interrupted, recipe, stops))
        once = seen == straight and len(set(seen[:per_epoch])) == per_epoch
        yield Finding(found == expected and once, f"stops at {stops}: {seen}")


def _with_positions(action: Callable[[], str]) -> tuple[str, list[int]]:
    """An action's result and the positions of the windows that it trained on, in order."""
    seen: list[int] = []
    whole = Trainer.train

    def train(self: Trainer, window: Window) -> None:
        seen.append(self.progress.position)
        whole(self, window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", train)
        return action(), seen


@row(
    "R7",
    "validate and save at every step, against never",
    "the same weights",
    Figure.resume,
    few=1,
    full=3,
)
def validating_and_saving_always(trial: Trial) -> Iterator[Finding]:
    cells = ["lstm", "gru", "rnn"]
    for cell in cells[: trial.times]:
        constant = SCHEDULES["constant"]()
        kept: list[Trainer] = []
        for name, trainer in (("often", {"valid_every": 1, "save_every": 1}),
                              ("never", {"valid_every": 1000})):  # fmt: skip
            recipe = Recipe(trial.place(f"{cell} {name}"), cell, schedule=constant, trainer=trainer)
            recipe.run(name, spoil=kept.append)
        often, never = (dict(trainer.model.named_parameters()) for trainer in kept)
        yield Finding(all(often[name].equal(never[name]) for name in never), cell)


@row(
    "R8",
    "stop and resume under an optimiser and a schedule, each with each",
    "identical; the learning rates are the same at every step",
    Figure.resume,
    few=4,
    full=len(OPTIMIZERS) * len(SCHEDULES),
)
def optimizers_and_schedules(trial: Trial) -> Iterator[Finding]:
    pairs = list(product(OPTIMIZERS, SCHEDULES))
    for optimizer, schedule in trial.draws.sample(pairs, trial.times):
        recipe = Recipe(
            trial.place(f"{optimizer} {schedule}"),
            optim=OPTIMIZERS[optimizer](lr=RATES.get(optimizer, 0.01)),
            schedule=SCHEDULES[schedule](),
        )
        expected, rates = _with_rates(partial(recipe.run, "straight"))
        found, same = _with_rates(partial(interrupted, recipe, [5, 9]))
        yield Finding(found == expected and rates == same, f"{optimizer}, {schedule}: {same}")


def _with_rates(action: Callable[[], str]) -> tuple[str, list[float]]:
    """An action's result and the learning rates of its steps, in order."""
    rates: list[float] = []
    whole = Optimizers.step

    def step(self: Optimizers, *arguments: object) -> None:
        rates.append(self.lr)
        whole(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimizers, "step", step)
        return action(), rates


CHANGES = (
    "trainer.accumulate=2", "runtime.precision=fp32", "runtime.precision=bf16", "runtime.threads=2",
    "runtime.kernels=reference", "runtime.deterministic=true", "trainer.batch_size=8",
    "trainer.window=8", "optim=sgd", "optim.lr=0.02", "model.dropout.output=0.1", "seed=2",
    "trainer.valid_every=20", "trainer.clip.norm=1", "schedule=constant", "tokenizer=char",
)  # fmt: skip


@row(
    "R9",
    "resume with another accumulation, precision, thread count, optimiser and so on",
    "refused with exit 2, or identical, or said to be not bit-exact",
    Figure.resume,
    few=3,
    full=len(CHANGES),
)
def changed_on_resume(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder), log_lines(), redirect_stderr(StringIO()):
        assert main(["train", *RECIPE, "name=whole", "trainer.max_steps=60"]) == 0
        assert main(["train", *RECIPE, "name=half", "trainer.max_steps=30"]) == 0
        whole, half = directory("whole"), directory("half")
        assert whole is not None
        assert half is not None
        for k, change in enumerate(trial.draws.sample(CHANGES, trial.times)):
            run = trial.folder / str(k)
            shutil.copytree(half, run)
            with log_lines() as said:
                code = main(["train", f"resume={run}", "trainer.max_steps=60", change])
            exact = not code and outcome(run) == outcome(whole)
            told = any("not bit-exact" in line for line in said)
            yield Finding(code == 2 or exact or told, f"{change}: exit {code}, exact {exact}")


@row(
    "R11",
    "stop and resume at a step of a run that ends early: best loss, patience, bar",
    "as in the uninterrupted run",
    Figure.resume,
    few=2,
    full=20,
)
def best_patience_and_bar(trial: Trial) -> Iterator[Finding]:
    straight = _standing(_impatient(trial, "straight"), None)
    ended = int(straight["step"])
    assert ended < STEPS, "it did not end early"
    for k in range(trial.times):
        stop = trial.draws.randrange(1, ended)
        found = _standing(_impatient(trial, k), stop)
        yield Finding(found == straight, f"stopped after {stop}: {found} instead of {straight}")


def _impatient(trial: Trial, name: object) -> Recipe:
    """A learning rate that no loss survives, and three validations of patience."""
    return Recipe(
        trial.place(name),
        optim=OPTIMIZERS["sgd"](lr=40.0, momentum=0.5),
        schedule=SCHEDULES["constant"](),
        steps=STEPS,
        trainer={"patience": 3},
    )


def _standing(recipe: Recipe, stop: int | None) -> dict[str, object]:
    """Where a run ends, and what its bar shows then."""
    if stop is not None:
        recipe.run("run", stop_after=stop)
    kept: list[Trainer] = []
    recipe.run("run", spoil=kept.append)
    progress, bar = kept[0].progress.to_json(), kept[0].console.bar
    shown = progress["tokens"] if bar.disable else bar.n
    return {**progress, "seconds": 0, "bar": shown, "total": kept[0].limits.total_tokens}
