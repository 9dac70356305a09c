"""Rows of numbers that go wrong in training: N1 to N4."""

import math
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from io import StringIO

import pytest
import torch
from fault_plan import Figure, Finding, Trial, log_lines, row
from harness import Recipe
from small_run import RECIPE, directory, workplace
from torch import Tensor

from lm.checkpoint import CheckpointFolder
from lm.cli import main
from lm.models.base import State
from lm.optim import OPTIMIZERS, SCHEDULES
from lm.optim.clipping import ClipConfig, clip_gradients
from lm.optim.outliers import OutlierConfig
from lm.runtime.randomness import Noise
from lm.training.loop import Trainer
from lm.training.step import TrainStep

BAD = (math.nan, math.inf, -math.inf)
RATES = {"sgd": 0.1, "adadelta": 1.0, "asgd": 0.1, "muon": 0.02}
Spoil = Callable[[TrainStep, int], float]


def spoiled(patch: pytest.MonkeyPatch, factor: Spoil) -> None:
    """Multiply the gradients of each step; all that it gives where the factor is not finite."""
    whole = TrainStep._accumulate

    def accumulate(self: TrainStep, *window: object) -> tuple[Tensor, Tensor, State]:
        objective, nats, after = whole(self, *window)  # type: ignore[arg-type]
        (noise,) = (argument for argument in window if isinstance(argument, Noise))
        by = factor(self, noise.step)
        for parameter in self.parameters.values():
            if parameter.grad is not None and by != 1:
                parameter.grad *= by
        if math.isfinite(by):
            return objective, nats, after
        spoiled = [{name: tensor * by for name, tensor in layer.items()} for layer in after]
        return objective * by, nats * by, spoiled

    patch.setattr(TrainStep, "_accumulate", accumulate)


@row(
    "N1",
    "a gradient that is NaN or infinite in one step, under each optimiser",
    "the step is skipped (parameters, optimiser, recurrent state as before), counted and logged",
    Figure.fault,
    few=3,
    full=3 * len(OPTIMIZERS),
)
def one_bad_step(trial: Trial) -> Iterator[Finding]:
    pairs = [(name, value) for name in OPTIMIZERS for value in BAD]
    for name, value in trial.draws.sample(pairs, trial.times):
        recipe = Recipe(
            trial.place(f"{name} {value}"),
            optim=OPTIMIZERS[name](lr=RATES.get(name, 0.01)),
            schedule=SCHEDULES["constant"](),
            trainer={"log_every": 1},
        )
        yield _one_bad_step(recipe, name, value)


def _one_bad_step(recipe: Recipe, name: str, value: float, bad: int = 6) -> Finding:
    snapshots: list[dict[str, Tensor]] = []
    whole = Trainer.train

    def train(self: Trainer, *window: object) -> None:
        if self.progress.step in (bad, bad + 1, bad + 2):
            snapshots.append(state_of(self))
        whole(self, *window)  # type: ignore[arg-type]

    kept: list[Trainer] = []
    with pytest.MonkeyPatch.context() as patch, log_lines():
        spoiled(patch, lambda step, k: value if k == bad else 1.0)
        patch.setattr(Trainer, "train", train)
        recipe.run("run", spoil=kept.append)
    before, after, later = snapshots
    skipped = int(kept[0].statistics.sums["skipped"])
    unchanged = all(before[k].equal(after[k]) for k in before)
    went_on = any(not after[k].equal(later[k]) for k in after)
    finite = all(bool(torch.isfinite(t).all()) for t in later.values())
    ok = unchanged and went_on and finite and skipped == 1
    return Finding(ok, f"{name}, {value}: unchanged {unchanged}, {skipped} counted, on {went_on}")


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of all that a step changes."""
    found = {**trainer.model.tensors(), **trainer.optimizers.state_tensors()}
    for k, layer in enumerate(trainer.state or []):
        found |= {f"state {k} {name}": tensor for name, tensor in layer.items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


@row(
    "N2",
    "gradients that stay not finite from a random step on",
    "exit 5 in two lines after trainer.max_bad_steps; the newest checkpoint is finite and verifies",
    Figure.fault,
    few=1,
    full=10,
)
def bad_steps_in_a_row(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        for k in range(trial.times):
            first = trial.draws.randrange(10, 60)
            said = StringIO()
            with pytest.MonkeyPatch.context() as patch, redirect_stderr(said), log_lines():
                spoiled(patch, lambda step, k, first=first: math.nan if k >= first else 1.0)
                code = main(["train", *RECIPE, f"name={k}", "trainer.max_bad_steps=5"])
            run = directory(str(k))
            assert run is not None
            model = CheckpointFolder(run / "checkpoints").newest_good()[1].model
            finite = all(bool(torch.isfinite(tensor).all()) for tensor in model.values())
            lines = said.getvalue().splitlines()
            ok = code == 5 and finite and lines[-2].startswith("lm: error: loss or gradient")
            yield Finding(ok, f"not finite from step {first} on: exit {code}, {lines[-2:]}")


@row(
    "N3",
    "finite gradients of 1e20 in one step, under each optimiser, clipped and not",
    "clipped: the update of the same gradients at 1; not clipped: skipped and counted, not zeroed",
    Figure.fault,
    few=4,
    full=2 * len(OPTIMIZERS),
)
def huge_gradients(trial: Trial) -> Iterator[Finding]:
    pairs = [(name, clipped) for name in OPTIMIZERS for clipped in (True, False)]
    for name, clipped in trial.draws.sample(pairs, trial.times):
        if clipped:
            usual, huge = _clipped_update(name, 1.0), _clipped_update(name, 1e20)
            same = torch.allclose(usual, huge, rtol=1e-4, atol=1e-7) and bool(usual.any())
            yield Finding(same, f"{name}: {usual.abs().max():.3g} became {huge.abs().max():.3g}")
            continue
        recipe = Recipe(
            trial.place(name),
            optim=OPTIMIZERS[name](lr=RATES.get(name, 0.01)),
            schedule=SCHEDULES["constant"](),
            trainer={"clip": ClipConfig(norm=None), "log_every": 1},
        )
        yield _unclipped(recipe, name)


def _clipped_update(name: str, scale: float) -> Tensor:
    """How a step changes all parameters together, the gradients clipped to norm 0.25."""
    draws = torch.Generator().manual_seed(1)
    shapes = {"layers.0.weight_ih": (6, 5), "embedding.weight": (5, 4), "head.bias": (4,)}
    parameters = {
        k: torch.nn.Parameter(torch.randn(shape, generator=draws)) for k, shape in shapes.items()
    }
    before = {k: p.detach().clone() for k, p in parameters.items()}
    optimizers = OPTIMIZERS[name](lr=0.1).build(parameters)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=draws) * scale
    norms = clip_gradients(parameters, ClipConfig(norm=0.25))
    optimizers.step(~norms.finite, norms.coefficient)
    return torch.cat([(p.detach() - before[k]).flatten() for k, p in parameters.items()])


def _unclipped(recipe: Recipe, name: str, bad: int = 6) -> Finding:
    kept: list[Trainer] = []
    with pytest.MonkeyPatch.context() as patch, log_lines():
        # The factor, not the gradient, is 1e22: gradients of a small model are about 0.01.
        spoiled(patch, lambda step, k: 1e22 if k == bad else 1.0)
        recipe.run("run", spoil=kept.append)
    skipped = int(kept[0].statistics.sums["skipped"])
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in state_of(kept[0]).values())
    return Finding(skipped == 1 and finite, f"{name}, not clipped: {skipped} skipped, {finite}")


@row(
    "N4",
    "gradients with spikes of ten standard deviations and more, several close together",
    "with trainer.clip.outlier each is skipped and no other step; without it none is",
    Figure.fault,
    few=2,
    full=20,
)
def spikes(trial: Trial) -> Iterator[Finding]:
    for k in range(trial.times):
        sizes = {30 + 4 * n: 10 ** trial.draws.uniform(1, 8) for n in range(4)}
        for sigmas in (6.0, None):
            outlier = OutlierConfig(sigmas=sigmas, history=16) if sigmas else OutlierConfig()
            recipe = Recipe(
                trial.place(f"{k} {sigmas}"),
                optim=OPTIMIZERS["sgd"](lr=0.01),
                schedule=SCHEDULES["constant"](),
                steps=50,
                trainer={"clip": ClipConfig(norm=0.25, outlier=outlier), "valid_every": 25},
            )
            yield _spikes(recipe, sizes, expected=len(sizes) if sigmas else 0)


def _spikes(recipe: Recipe, sizes: dict[int, float], expected: int) -> Finding:
    kept: list[Trainer] = []
    with pytest.MonkeyPatch.context() as patch, log_lines():
        spoiled(patch, lambda step, k: sizes.get(k, 1.0))
        recipe.run("run", spoil=kept.append)
    skipped = int(kept[0].statistics.sums["skipped"])
    return Finding(skipped == expected, f"spikes {sizes}: {skipped} skipped, not {expected}")
