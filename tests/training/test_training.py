"""The step and the loop: accumulation, limits, statistics, stopping, early stopping."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from harness import Recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lm.data.corpus import Unit
from lm.errors import ConfigError, Stopped
from lm.optim import SCHEDULES
from lm.optim.clipping import ClipConfig
from lm.training import TrainerConfig
from lm.training.loop import Trainer
from lm.training.progress import Limits, Progress
from lm.training.signals import StopFlag
from lm.training.statistics import Statistics
from lm.training.windows import Windows

CONSTANT = SCHEDULES["constant"]()


def trained(recipe: Recipe, name: str) -> Trainer:
    kept: list[Trainer] = []
    recipe.run(name, spoil=kept.append)
    return kept[0]


@pytest.mark.parametrize("passes", [2, 3, 4])
def test_accumulation_equals_the_whole_batch_to_rounding(tmp_path: Path, passes: int) -> None:
    whole = trained(Recipe(tmp_path, schedule=CONSTANT), "whole")
    parts = trained(Recipe(tmp_path, schedule=CONSTANT, trainer={"accumulate": passes}), "parts")
    for (name, one), other in zip(
        whole.model.named_parameters(), parts.model.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6, msg=name)
    assert whole.progress.tokens == parts.progress.tokens


def test_accumulation_splits_resets_with_the_streams(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path, schedule=CONSTANT, unit=Unit.line)
    split = Recipe(tmp_path, schedule=CONSTANT, unit=Unit.line, trainer={"accumulate": 2})
    one, other = trained(recipe, "whole"), trained(split, "parts")
    torch.testing.assert_close(one.state, other.state, rtol=0, atol=1e-5)
    plain = trained(Recipe(tmp_path, schedule=CONSTANT), "plain")
    assert not torch.allclose(plain.model.head.weight, one.model.head.weight)


def test_the_whole_training_split_but_the_remainder_is_trained_each_epoch(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path, trainer={"max_epochs": 2, "max_steps": None, "valid_every": None})
    trainer = trained(recipe, "run")
    streams = trainer.streams
    assert trainer.progress.tokens == 2 * streams.length * streams.num_streams
    assert trainer.progress.step == 2 * streams.windows_per_epoch
    assert streams.length % recipe.trainer_config().window, "the last window must be shorter"
    assert (trainer.progress.epoch, trainer.progress.position, trainer.state) == (2, 0, None)
    assert trainer.progress.evaluated_step == trainer.progress.step


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": 3}, 18),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 356}, 6),
        ({"max_tokens": 356 + 64}, 7),
        ({"max_tokens": 356 + 65}, 8),
        ({"max_steps": 50, "max_epochs": 2}, 12),
        ({"max_seconds": 9.0}, None),
    ],
)
def test_limits_in_steps(limits: dict[str, float], steps: int | None, tmp_path: Path) -> None:
    streams = Recipe(tmp_path).build("run").streams
    # 89 steps of 4 streams, in windows of 16: five whole ones and one of 9.
    assert (streams.length, streams.windows_per_epoch) == (89, 6)
    config = TrainerConfig(**{"max_epochs": None, **limits})
    windows = Windows(streams, config.random_window, 1)
    assert Limits.of(config, windows).total_steps == steps


def test_wall_clock_patience_and_reasons() -> None:
    config = TrainerConfig(max_epochs=None, max_seconds=9.0, patience=2)
    limits = Limits(config, None, None)
    assert limits.reached(Progress(seconds=8.9)) is None
    assert limits.reached(Progress(seconds=9.0)) == "trainer.max_seconds=9 reached"
    progress = Progress()
    for loss in (3.0, 2.0, 2.5):
        progress.observe(loss)
    assert limits.reached(progress) is None
    assert not progress.observe(float("nan"))
    assert limits.reached(progress) == "no improvement in 2 validations"
    assert progress.observe(1.0)
    assert (progress.best_loss, progress.bad_evaluations) == (1.0, 0)


def test_every_limit_that_was_reached_is_raised_to_go_on() -> None:
    config = TrainerConfig(
        max_epochs=3, max_steps=900, max_tokens=10**6, max_seconds=60, patience=2
    )
    limits = Limits(config, 300, None)
    done = Progress(step=300, epoch=3, tokens=5000, seconds=9.0, bad_evaluations=1)
    assert limits.raised(done) == ["trainer.max_epochs=8"]
    later = Progress(step=900, epoch=3, tokens=5000, seconds=61.2, bad_evaluations=2)
    assert limits.raised(later) == [
        "trainer.max_epochs=8", "trainer.max_steps=1800", "trainer.max_seconds=122",
        "trainer.patience=4",
    ]  # fmt: skip
    assert limits.raised(Progress()) == []


def test_a_schedule_with_a_horizon_needs_more_than_a_clock() -> None:
    with pytest.raises(ConfigError, match="length of the run"):
        SCHEDULES["cosine"]().build(total_steps=None, epoch_of=lambda step: step // 10)


def test_statistics_leave_skipped_steps_out() -> None:
    statistics = Statistics(torch.device("cpu"))
    nan, yes, no = torch.tensor(float("nan")), torch.tensor(True), torch.tensor(False)

    def add(nats: float, norm: float, *, clipped: bool, skip: bool) -> None:
        statistics.add(
            nats=torch.tensor(nats), tokens=10, norm=torch.tensor(norm),
            clipped=yes if clipped else no, skip=yes if skip else no, bad=yes if skip else no,
        )  # fmt: skip

    add(20.0, 1.0, clipped=False, skip=False)
    for _ in range(3):
        add(float(nan), float("inf"), clipped=True, skip=True)
    add(30.0, 3.0, clipped=True, skip=False)
    interval = statistics.read()
    assert interval.loss == pytest.approx(2.5)
    assert interval.gradient_norm == pytest.approx(2.0)
    assert interval.clip_fraction == pytest.approx(0.5)
    assert (interval.skipped, interval.worst_run) == (3, 3)
    add(float(nan), float("nan"), clipped=False, skip=True)
    again = statistics.read()
    assert (again.skipped, again.worst_run) == (4, 1)
    assert again.loss != again.loss  # nothing but skipped steps: no mean


def test_the_second_signal_leaves_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)  # a shell ignores it for what runs in the background
    flag = StopFlag()
    with flag.listening(), flag.deferring():
        signal.raise_signal(signal.SIGINT)
        assert flag.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_before_training_leaves_at_once() -> None:
    with StopFlag().listening(), pytest.raises(Stopped, match="SIGTERM before training began"):
        signal.raise_signal(signal.SIGTERM)


def test_the_clipping_threshold_is_logged_where_there_is_one(tmp_path: Path) -> None:
    for name, norm in (("clipped", 0.7), ("free", None)):
        Recipe(tmp_path, trainer={"log_every": 7, "clip": ClipConfig(norm=norm)}).run(name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        logged = [row for row in rows if "optim/gradient_norm" in row]
        assert logged
        assert {row.get("optim/clip_threshold") for row in logged} == {norm}


def test_validation_does_not_count_against_the_speed_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer._validate

    def slowly(self: Trainer) -> float:
        time.sleep(0.5)
        return validate(self)

    monkeypatch.setattr(Trainer, "_validate", slowly)
    trainer = trained(Recipe(tmp_path, steps=6, trainer={"log_every": 1, "valid_every": 3}), "run")
    lines = (trainer.directory.path / "metrics.jsonl").read_text().splitlines()
    rows = {row["step"]: row for row in map(json.loads, lines) if "train/loss" in row}
    tokens = rows[4]["tokens"] - rows[3]["tokens"]
    assert rows[4]["perf/tokens_per_second"] > tokens / 0.5
    assert rows[4]["perf/seconds"] > 0.5


def test_tensorboard_of_a_resumed_run_has_every_point_once(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path, trainer={"log_every": 1})
    recipe.run("run", stop_after=5)
    # Points after the checkpoint, as a killed run leaves them.
    board = recipe.build("run")
    with board.logs(None):
        for step in (6, 7, 8):
            board.writer.scalars(step, step, {"train/loss": 99.0})
        board.writer.flush()
    recipe.run("run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in points] == list(range(1, 15))
    assert all(value < 99 for _, value in points)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "trainer.batch_size must be >= 1, got 0"),
        ({"accumulate": 99}, "trainer.accumulate=99 exceeds trainer.batch_size"),
        ({"max_epochs": None}, "the run has no end"),
        ({"max_seconds": float("inf")}, "trainer.max_seconds must be a finite number > 0"),
    ],
)
def test_values_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainerConfig(**fields)
    with pytest.raises(ConfigError, match="exclude each other"):
        ClipConfig(norm=1.0, value=1.0)
