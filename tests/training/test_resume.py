"""A run that is stopped anywhere and resumed equals, bit for bit, one that was not."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from harness import Recipe

from lm.data.corpus import Unit
from lm.errors import CheckpointError
from lm.optim import OPTIMIZERS
from lm.runtime.choices import Choices
from lm.runtime.compute import Kernels, Precision
from lm.training.loop import Trainer

NATIVE = ("rnn", "lstm", "gru")
RATES = {"sgd": 1.0, "adadelta": 1.0, "asgd": 1.0, "muon": 0.02, "adafactor": 0.01}


def interrupted(
    recipe: Recipe, stops: list[int], spoil: Callable[[Trainer], None] = lambda trainer: None
) -> str:
    for stop in stops:
        recipe.run("stopped", stop_after=stop)
    return recipe.run("stopped", spoil=spoil)


def each_with_a_cell(settings: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Each setting with each cell; by default with one, the cells in turn."""
    return [
        pytest.param(
            cell, *setting, marks=[] if NATIVE[k % len(NATIVE)] == cell else pytest.mark.slow
        )
        for k, setting in enumerate(settings)
        for cell in NATIVE
    ]


@pytest.mark.parametrize(("cell", "optimizer"), each_with_a_cell([(name,) for name in OPTIMIZERS]))
def test_every_cell_and_optimizer_resumes_exactly(
    tmp_path: Path, cell: str, optimizer: str
) -> None:
    optim = OPTIMIZERS[optimizer](lr=RATES.get(optimizer, 0.01))
    recipe = Recipe(tmp_path, cell=cell, optim=optim, steps=8)
    assert interrupted(recipe, [4]) == recipe.run("straight")


@pytest.mark.parametrize(
    ("cell", "kernels", "precision"),
    each_with_a_cell([*product(Kernels, (Precision.fp32, Precision.bf16))]),
)
def test_every_precision_and_kernel_resumes_exactly(
    tmp_path: Path, cell: str, kernels: Kernels, precision: Precision
) -> None:
    recipe = Recipe(tmp_path, cell=cell, kernels=kernels, precision=precision, steps=8)
    assert interrupted(recipe, [4]) == recipe.run("straight")


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize("cell", NATIVE)
def test_compiled_kernels_resume_exactly(
    tmp_path: Path, cell: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is fastest here."""
    asked = []

    def native_where_it_runs(self: Choices, question: str, candidates: dict[str, object]) -> str:
        asked.append("native" in candidates)
        return "native" if "native" in candidates else next(iter(candidates))

    monkeypatch.setattr(Choices, "fastest", native_where_it_runs)
    recipe = Recipe(tmp_path, cell=cell, kernels=Kernels.fast, precision=precision, steps=8)
    assert interrupted(recipe, [4]) == recipe.run("straight")
    assert any(asked)


@pytest.mark.parametrize("extra", [{"accumulate": 3}, {"save_every": 1}, {"tokens_axis": True}])
def test_trainer_settings_resume_exactly(tmp_path: Path, extra: dict[str, object]) -> None:
    recipe = Recipe(tmp_path, trainer=extra)
    assert interrupted(recipe, [5]) == recipe.run("straight")


@pytest.mark.parametrize("unit", [Unit.line, Unit.document])
def test_units_resume_exactly(tmp_path: Path, unit: Unit) -> None:
    recipe = Recipe(tmp_path, unit=unit)
    assert interrupted(recipe, [5]) == recipe.run("straight")


def test_metrics_file_of_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path)
    recipe.run("straight")
    interrupted(recipe, [6, 7])

    def lines(name: str) -> list[dict[str, float]]:
        text = (tmp_path / name / "metrics.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]

    assert lines("stopped") == lines("straight")
    assert [row["step"] for row in lines("stopped") if "train/loss" in row] == [4, 8, 12, 14]


def test_lines_written_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path)
    recipe.run("stopped", stop_after=6)
    path = tmp_path / "stopped" / "metrics.jsonl"
    saved = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 7, "train/loss": 99}\n{"step": 8, "tra')
    lines: list[str] = []
    recipe.steps = 7  # one more step, which logs nothing but the validation at the end
    recipe.run("stopped", spoil=lambda trainer: lines.append(path.read_text()))
    assert path.read_text().startswith(saved)
    assert '"train/loss": 99}' not in path.read_text()
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(("at_step", "evaluated"), [(6, 3), (14, 12)])
def test_a_stop_during_evaluation_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_step: int, evaluated: int
) -> None:
    recipe = Recipe(tmp_path)
    expected = recipe.run("straight")
    whole = Trainer._abandon_if_stopped

    def stop_in_one(self: Trainer, num_targets: int) -> None:
        if self.progress.step == at_step:
            self.stop.step = at_step  # type: ignore[attr-defined]
        whole(self, num_targets)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_abandon_if_stopped", stop_in_one)
        assert recipe.run("stopped", stop_after=99).startswith("stopped")
    state = recipe.build("stopped").directory.checkpoints.newest_good()[1].state
    assert (state["progress"]["step"], state["progress"]["evaluated_step"]) == (at_step, evaluated)
    assert recipe.run("stopped") == expected
    best = (tmp_path / "stopped" / "checkpoints" / "best").read_text()
    assert best == (tmp_path / "straight" / "checkpoints" / "best").read_text()


def test_other_data_are_refused(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path)
    recipe.run("stopped", stop_after=3)
    (tmp_path / "text.txt").write_text((tmp_path / "text.txt").read_text().replace("cat", "cow"))
    with pytest.raises(CheckpointError, match="data differ"):
        recipe.run("stopped")


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path)
    recipe.run("stopped", stop_after=3)
    recipe.optim = OPTIMIZERS["adamw"]()
    with pytest.raises(CheckpointError, match="optimizer is SGD"):
        recipe.run("stopped")
