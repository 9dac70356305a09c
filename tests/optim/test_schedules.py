"""Schedules by hand-computed values, their joints, their ends and plateau's memory."""

import json
import math
from itertools import pairwise

import pytest

from lm.errors import CheckpointError, ConfigError
from lm.optim.schedule_base import Schedule
from lm.optim.schedules import (
    SCHEDULES,
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    OneCycleConfig,
    PlateauConfig,
    StepConfig,
)


def values(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.multiplier(step) for step in range(steps)]


def build(config, total_steps: int | None = None, steps_per_epoch: int = 10) -> Schedule:
    return config.build(total_steps=total_steps, epoch_of=lambda step: step // steps_per_epoch)


def test_constant():
    assert values(build(ConstantConfig()), 3) == [1.0, 1.0, 1.0]


def test_linear_with_warmup():
    schedule = build(LinearConfig(warmup_steps=3, final_fraction=0.2), 8)
    expected = [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert values(schedule, 8) == pytest.approx(expected, abs=1e-15)


def test_cosine_with_warmup():
    schedule = build(CosineConfig(warmup_steps=1, final_fraction=0.2), 6)
    quarter = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))
    late = 0.2 + 0.8 * 0.5 * (1 + math.cos(3 * math.pi / 4))
    assert values(schedule, 6) == pytest.approx([0.5, 1.0, quarter, 0.6, late, 0.2], abs=1e-15)


def test_cosine_without_warmup_starts_at_the_peak():
    assert build(CosineConfig(), 5).multiplier(0) == 1.0


def test_one_cycle_goes_up_down_and_annihilates():
    config = OneCycleConfig(peak_fraction=0.4, start_fraction=0.2, final_fraction=0.01)
    expected = [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.105, 0.01]
    assert values(build(config, 11), 11) == pytest.approx(expected, abs=1e-15)


def test_one_cycle_without_annihilation_returns_to_its_start():
    config = OneCycleConfig(peak_fraction=0.5, start_fraction=0.5, final_fraction=0.5)
    assert values(build(config, 5), 5) == pytest.approx([0.5, 0.75, 1.0, 0.75, 0.5])


def test_step_divides_after_the_start_epoch_and_every_few_epochs():
    schedule = build(StepConfig(start_epoch=2, every_epochs=2, factor=2.0), steps_per_epoch=3)
    by_epoch = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert values(schedule, 18) == [m for m in by_epoch for _ in range(3)]


def test_step_divides_at_milestones_where_they_are_given():
    schedule = build(StepConfig(milestones=[1, 4], factor=10.0), steps_per_epoch=2)
    by_epoch = [1.0, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert values(schedule, 12) == pytest.approx([m for m in by_epoch for _ in range(2)])
    for wrong in ([0, 3], [2, 2]):
        with pytest.raises(ConfigError, match=r"schedule.milestones must rise from 1 on"):
            StepConfig(milestones=wrong)


@pytest.mark.parametrize("config", [LinearConfig(), CosineConfig(), OneCycleConfig()])
@pytest.mark.parametrize("total", [2, 3, 7, 1000])
def test_last_step_reaches_the_final_fraction_exactly_and_stays(config, total):
    schedule = build(config, total)
    assert schedule.multiplier(total - 1) == config.final_fraction
    assert schedule.multiplier(total + 5) == config.final_fraction


@pytest.mark.parametrize("config", [LinearConfig(), CosineConfig(), OneCycleConfig()])
def test_a_run_of_one_step_takes_it_at_the_peak(config):
    assert build(config, 1).multiplier(0) == 1.0


@pytest.mark.parametrize(
    "config", [LinearConfig(warmup_steps=100), CosineConfig(warmup_steps=100), OneCycleConfig()]
)
def test_learning_rate_is_continuous_and_peaks_at_one(config):
    multipliers = values(build(config, 1000), 1000)
    jumps = [abs(b - a) for a, b in pairwise(multipliers)]
    assert max(jumps) < 0.0101  # the warm-up's own slope is 1/101
    assert max(multipliers) == 1.0
    assert min(multipliers) > 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_multiplier_is_a_function_of_the_step_alone(name):
    schedule = build(SCHEDULES[name](), 20)
    assert values(schedule, 20) == list(
        reversed([schedule.multiplier(s) for s in range(19, -1, -1)])
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_need_the_length_of_the_run_say_so(name):
    config = SCHEDULES[name]()
    assert config.needs_horizon is (name in {"cosine", "linear", "one_cycle"})
    if config.needs_horizon:
        with pytest.raises(ConfigError, match="must know the length of the run") as caught:
            build(config, None)
        for remedy in ("trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens"):
            assert remedy in caught.value.remedy
    else:
        assert build(config, None).multiplier(0) == 1.0


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_steps must be < the 5 steps of the run, got 5"):
        build(LinearConfig(warmup_steps=5), 5)
    build(LinearConfig(warmup_steps=4), 5)


def test_plateau_divides_when_validation_does_not_improve():
    schedule = build(PlateauConfig())
    seen = []
    for loss in [5.0, 4.0, 4.5, 4.2, 3.9, 3.9, math.nan]:
        schedule.observe(loss)
        seen.append(schedule.multiplier(0))
    # 4.2 is better than 4.5 but not than the best so far; equal is no improvement.
    assert seen == [1.0, 1.0, 1 / 4, 1 / 16, 1 / 16, 1 / 64, 1 / 256]


def test_plateau_patience_and_least_improvement():
    schedule = build(PlateauConfig(factor=2.0, patience=1, min_delta=0.1))
    seen = []
    for loss in [5.0, 4.95, 4.92, 4.5, 4.6, 4.3, 4.6, 4.6, 4.6, 4.6]:
        schedule.observe(loss)
        seen.append(schedule.multiplier(0))
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_plateau_survives_nan_and_infinity_from_the_start():
    schedule = build(PlateauConfig())
    schedule.observe(math.nan)
    schedule.observe(math.inf)
    assert schedule.state() == {"current": 1 / 16, "best": None, "misses": 0}
    schedule.observe(3.0)
    assert schedule.state()["best"] == 3.0


def test_plateau_goes_on_from_its_saved_state():
    losses = [5.0, 4.0, 4.1, 4.2, 4.3, 3.9, 4.0]
    config = PlateauConfig(patience=1)

    def run(schedule, losses):
        seen = []
        for loss in losses:
            schedule.observe(loss)
            seen.append(schedule.multiplier(0))
        return seen

    whole = run(build(config), losses)
    for cut in range(len(losses)):
        first, second = build(config), build(config)
        run(first, losses[:cut])
        second.load(json.loads(json.dumps(first.state())))
        assert run(second, losses[cut:]) == whole[cut:]


def test_state_of_another_kind_of_schedule_is_refused():
    plateau, constant = build(PlateauConfig()), build(ConstantConfig())
    constant.observe(1.0)
    constant.load(constant.state())
    with pytest.raises(CheckpointError, match=r"\(best, current, misses\) is not of this run"):
        constant.load(plateau.state())
    with pytest.raises(CheckpointError, match=r"\(none\) is not of this run"):
        plateau.load(constant.state())


@pytest.mark.parametrize(
    ("name", "field", "value", "rule"),
    [
        ("plateau", "factor", 0.5, ">= 1"),
        ("plateau", "factor", math.inf, "a finite number"),
        ("plateau", "patience", -1, ">= 0"),
        ("plateau", "min_delta", math.nan, "a finite number >= 0"),
        ("step", "every_epochs", 0, ">= 1"),
        ("step", "factor", math.nan, "a finite number"),
        ("step", "start_epoch", -1, ">= 0"),
        ("cosine", "warmup_steps", -1, ">= 0"),
        ("cosine", "final_fraction", -0.1, "a number in [0, 1)"),
        ("linear", "final_fraction", math.nan, "a number in [0, 1)"),
        ("one_cycle", "peak_fraction", 0.6, "a number in (0, 0.5]"),
        ("one_cycle", "peak_fraction", math.nan, "a number in (0, 0.5]"),
        ("one_cycle", "start_fraction", 0.0, "a number in (0, 1]"),
        ("one_cycle", "final_fraction", 1.0, "a number in [0, 1)"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, field, value, rule):
    with pytest.raises(ConfigError) as caught:
        SCHEDULES[name](**{field: value})
    assert caught.value.cause == f"schedule.{field} must be {rule}, got {value!r}"
