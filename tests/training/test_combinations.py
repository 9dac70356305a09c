"""Every cell × head × regulariser that is legal trains, resumes to the last bit and evaluates.

A sample of pairs by default, all with `-m slow`. What is not legal is refused with its reason.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from harness import Recipe

from lm.errors import ConfigError
from lm.evaluation.exact import evaluate
from lm.models import CELLS
from lm.models.adaptive import AdaptiveConfig
from lm.models.dropout import DropoutConfig
from lm.models.mixture import MixtureConfig
from lm.models.penalties import PenaltyConfig
from lm.models.recurrent_config import HeadKind
from lm.models.sampled import SampledConfig
from lm.optim import OPTIMIZERS
from lm.optim.averaging import AverageKind, AveragingConfig
from lm.optim.clipping import ClipConfig
from lm.optim.outliers import OutlierConfig
from lm.runtime.choices import Choices
from lm.runtime.compute import Kernels
from lm.training.windows import RandomWindowConfig

SCAN = {"mingru", "minlstm", "qrnn"}  # without a recurrent matrix

HEADS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "tied": {"tied": True},
    "sampled": {"sampled": SampledConfig(words=30, frequent=10)},
    "adaptive": {"head": HeadKind.adaptive},
    "adaptive, tied": {
        "head": HeadKind.adaptive, "tied": True, "adaptive": AdaptiveConfig(divisor=1.0),
    },
    "mixture": {"head": HeadKind.mixture, "mixture": MixtureConfig(experts=3)},
    "mixture, tied": {
        "head": HeadKind.mixture, "tied": True, "mixture": MixtureConfig(experts=3),
    },
}  # fmt: skip

# Field of dropout, penalty, the model or the trainer → value.
REGULARISERS: dict[str, dict[str, Any]] = {
    "none": {},
    "locked": {"dropout.locked": True},
    "words": {"dropout.words": 0.1},
    "weights": {"dropout.weights": 0.5},
    "state": {"dropout.state": 0.2},
    "latent": {"dropout.latent": 0.2},
    "activation": {"penalty.activation": 2.0},
    "temporal": {"penalty.temporal": 1.0},
    "smoothing": {"penalty.label_smoothing": 0.1},
    "reset": {"model.state_reset": 0.3},
    "residual": {"model.residual": True},
    "skip": {"model.skip": True},
    "windows": {"trainer.random_window": RandomWindowConfig(std=3.0, half_probability=0.2)},
    "decay": {"optim.weight_decay": 1e-3, "optim.no_decay": ["*bias*"]},
    "mean": {"trainer.averaging": AveragingConfig(kind=AverageKind.mean, nonmonotone=0)},
    "ema": {"trainer.averaging": AveragingConfig(kind=AverageKind.ema, decay=0.9)},
    "adaptive clipping": {"clip.adaptive": 0.01, "clip.norm": None},
    "outliers": {"clip.outlier": OutlierConfig(sigmas=1.0, history=2)},
}
EXCLUSIVE = {"mean": "ema"}  # of two that set the same field, all together takes the first


def illegal(cell: str, head: str, regulariser: str) -> str | None:
    """Why, in words of the message."""
    if regulariser in ("weights", "state") and cell in SCAN:
        return f"model.dropout.{regulariser}"
    if regulariser == "smoothing" and head not in ("softmax", "tied"):
        return "model.penalty.label_smoothing"
    if regulariser == "latent" and not head.startswith("mixture"):
        return "model.dropout.latent"
    return None


def recipe_of(folder: Path, cell: str, head: str, *regularisers: str) -> Recipe:
    parts: dict[str, dict[str, Any]] = {
        "dropout": {"embedding": 0.1, "between": 0.2, "output": 0.3},
        "penalty": {}, "model": dict(HEADS[head]), "trainer": {}, "optim": {},
        "clip": {"norm": 0.5},
    }  # fmt: skip
    for name in regularisers:
        for key, value in REGULARISERS[name].items():
            part, _, field = key.partition(".")
            parts[part][field] = value
    model = {
        **parts["model"],
        "dropout": DropoutConfig(**parts["dropout"]),
        "penalty": PenaltyConfig(**parts["penalty"]),
    }
    trainer = {**parts["trainer"], "clip": ClipConfig(**parts["clip"])}
    optim = OPTIMIZERS["sgd"](lr=1.0, momentum=0.5, **parts["optim"])
    return Recipe(
        folder, cell=cell, optim=optim, model=model, trainer=trainer, steps=6, kernels=Kernels.auto
    )


def legal(cell: str, head: str) -> Iterator[tuple[str, ...]]:
    """Each regulariser alone, then all that agree."""
    alone = [name for name in REGULARISERS if illegal(cell, head, name) is None]
    yield from ((name,) for name in alone)
    yield tuple(name for name in alone if EXCLUSIVE.get(name) not in alone)


ALL = [(c, h, r) for c, h in product(CELLS, HEADS) for r in legal(c, h)]
# Walking the three lists at different strides meets many pairs in few runs; this start and stride
# meet every option in thirteen.
SAMPLE = [ALL[k] for k in range(65, len(ALL), 99)]


@pytest.fixture(autouse=True)
def _first_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured: with layers this small it would be most of the time."""
    monkeypatch.setattr(
        Choices, "fastest", lambda self, question, candidates: next(iter(candidates))
    )


def check(folder: Path, cell: str, head: str, regularisers: tuple[str, ...]) -> None:
    recipe = recipe_of(folder, cell, head, *regularisers)
    recipe.run("stopped", stop_after=4)
    assert recipe.run("stopped") == recipe.run("straight")
    fresh = recipe.build("straight")
    best = fresh.directory.checkpoints.newest_good()[1].state["progress"]["best_loss"]
    # Each alone has learnt; all together, clipped to a hundredth and with steps skipped, hardly.
    slack = 0.0 if len(regularisers) == 1 else 0.05
    assert best < evaluate(fresh.model, fresh.valid, num_streams=2).loss + slack


@pytest.mark.parametrize(("cell", "head", "regularisers"), SAMPLE, ids=str)
def test_a_sample_of_combinations(
    tmp_path: Path, cell: str, head: str, regularisers: tuple[str, ...]
) -> None:
    check(tmp_path, cell, head, regularisers)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", CELLS)
def test_all_combinations(tmp_path: Path, cell: str, head: str) -> None:
    for number, regularisers in enumerate(legal(cell, head)):
        folder = tmp_path / str(number)
        folder.mkdir()
        check(folder, cell, head, regularisers)


@pytest.mark.parametrize("cell", CELLS)
def test_what_makes_no_sense_is_refused_with_its_reason(tmp_path: Path, cell: str) -> None:
    for head, regulariser in product(HEADS, REGULARISERS):
        reason = illegal(cell, head, regulariser)
        if reason is not None:
            with pytest.raises(ConfigError, match=reason):
                recipe_of(tmp_path, cell, head, regulariser).build("refused")


def test_the_sample_meets_every_option() -> None:
    cells, heads, sets = zip(*SAMPLE, strict=True)
    assert set(cells) == set(CELLS)
    assert set(heads) == set(HEADS)
    assert {name for names in sets for name in names} == set(REGULARISERS)
