"""The learning-rate schedules; `schedule_base` states the convention that they follow."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import ClassVar

from lm import checks
from lm.errors import ConfigError
from lm.optim.schedule_base import PureSchedule, Schedule, ScheduleConfig, State, known_horizon
from lm.runtime.untrusted import as_count, as_number

Knots = Sequence[tuple[int, float]]


def piecewise_linear(knots: Knots, step: int) -> float:
    """Straight lines through `knots` of (step, multiplier); beyond the last, its value."""
    for (left, low), (right, high) in pairwise(knots):
        if step <= right:
            share = (step - left) / (right - left) if right > left else 1.0
            return (1.0 - share) * low + share * high
    return knots[-1][1]


@dataclass(kw_only=True, slots=True)
class ConstantConfig(ScheduleConfig):
    """The optimiser's rate throughout."""

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        return PureSchedule(lambda step: 1.0)


@dataclass(slots=True)
class PlateauSchedule(Schedule):
    """The schedule of `PlateauConfig`, the only one with a memory."""

    factor: float
    patience: int
    min_delta: float
    current: float = field(default=1.0, init=False)
    best: float | None = field(default=None, init=False)
    misses: int = field(default=0, init=False)

    def multiplier(self, step: int) -> float:
        return self.current

    def observe(self, loss: float) -> None:
        # A NaN compares false and so counts as no improvement.
        if loss < (math.inf if self.best is None else self.best - self.min_delta):
            self.best, self.misses = loss, 0
            return
        self.misses += 1
        if self.misses > self.patience:
            self.current, self.misses = self.current / self.factor, 0

    def state(self) -> State:
        return {"current": self.current, "best": self.best, "misses": self.misses}

    def load(self, state: Mapping[str, float | int | None]) -> None:
        Schedule.load(self, state)
        best = state["best"]
        self.current = as_number(state["current"], "state.schedule.current", least=0)
        self.best = None if best is None else as_number(best, "state.schedule.best")
        self.misses = as_count(state["misses"], "state.schedule.misses")


@dataclass(kw_only=True, slots=True)
class PlateauConfig(ScheduleConfig):
    """Anneal on plateau: divide the rate when validation does not improve on the best so far.

    Attributes:
        factor: what the rate is divided by (4 in pytorch/examples' language model).
        patience: how many validations without improvement are forgiven before each division.
        min_delta: an improvement is a decrease of the loss by more than this, in nats.
    """

    factor: float = 4.0
    patience: int = 0
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        _check_divisor(self.factor)
        checks.at_least("schedule.patience", self.patience, 0)
        checks.non_negative("schedule.min_delta", self.min_delta)

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        return PlateauSchedule(self.factor, self.patience, self.min_delta)


@dataclass(kw_only=True, slots=True)
class StepConfig(ScheduleConfig):
    """Divide the rate after `start_epoch` epochs and again every `every_epochs` from then on.

    The defaults are those of the medium model of Zaremba et al. 2014.

    Attributes:
        every_epochs: epochs between two divisions.
        factor: what the rate is divided by each time.
        start_epoch: epochs before the first division.
        milestones: epochs after which it is divided instead, rising; None is off.
    """

    every_epochs: int = 1
    factor: float = 1.2
    start_epoch: int = 6
    milestones: list[int] | None = None

    def __post_init__(self) -> None:
        for before, after in pairwise([0, *(self.milestones or ())]):
            if before >= after:
                raise ConfigError(
                    f"schedule.milestones must rise from 1 on, got {self.milestones}",
                    "Set for instance schedule.milestones=[25,35].",
                )
        checks.at_least("schedule.every_epochs", self.every_epochs, 1)
        _check_divisor(self.factor)
        checks.at_least("schedule.start_epoch", self.start_epoch, 0)

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        return PureSchedule(partial(self._multiplier, epoch_of))

    def _multiplier(self, epoch_of: Callable[[int], int], step: int) -> float:
        epoch = epoch_of(step)
        if self.milestones is not None:
            return float(self.factor ** -sum(epoch >= passed for passed in self.milestones))
        late = epoch - self.start_epoch
        return float(self.factor ** -max(0, late // self.every_epochs + 1))


@dataclass(kw_only=True, slots=True)
class WarmupConfig(ScheduleConfig):
    """What schedules with a warm-up share.

    In a warm-up of w steps the multiplier is (step + 1) / (w + 1): it starts above zero, so that
    no step is wasted, and reaches 1 in the first step after it.

    Attributes:
        warmup_steps: length of the linear warm-up; 0 for none.
        final_fraction: the multiplier of the last step (a run of a single step stays at 1).
    """

    needs_horizon: ClassVar[bool] = True

    warmup_steps: int = 0
    final_fraction: float = 0.1

    def __post_init__(self) -> None:
        checks.at_least("schedule.warmup_steps", self.warmup_steps, 0)
        checks.fraction("schedule.final_fraction", self.final_fraction)

    def knots(self, total_steps: int | None, end: float) -> Knots:
        """Up to 1 after the warm-up, then down to `end` in the last step."""
        horizon = known_horizon(total_steps)
        if self.warmup_steps >= horizon:
            raise ConfigError(
                f"schedule.warmup_steps must be < the {horizon} steps of the run, "
                f"got {self.warmup_steps}",
                "Shorten the warm-up or train longer.",
            )
        return ((-1, 0.0), (self.warmup_steps, 1.0), (horizon - 1, end))


@dataclass(kw_only=True, slots=True)
class LinearConfig(WarmupConfig):
    """Linear warm-up, then a straight line down to `final_fraction`."""

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        return PureSchedule(partial(piecewise_linear, self.knots(total_steps, self.final_fraction)))


@dataclass(kw_only=True, slots=True)
class CosineConfig(WarmupConfig):
    """Linear warm-up, then half a cosine down to `final_fraction` (Loshchilov & Hutter 2017)."""

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        return PureSchedule(partial(self._multiplier, self.knots(total_steps, 0.0)))

    def _multiplier(self, knots: Knots, step: int) -> float:
        ramp = piecewise_linear(knots, step)
        if step < self.warmup_steps:
            return ramp
        bend = 0.5 * (1.0 - math.cos(math.pi * ramp))
        return self.final_fraction + (1.0 - self.final_fraction) * bend


@dataclass(kw_only=True, slots=True)
class OneCycleConfig(ScheduleConfig):
    """One cycle up and down, then annihilation (Smith & Topin 2018, "Super-convergence").

    Linear in three phases: up from `start_fraction` to 1, down to `start_fraction` in as many
    steps, and with the steps that are left down to `final_fraction`.

    Attributes:
        peak_fraction: share of the run after which the peak is reached, in (0, 0.5].
        start_fraction: multiplier of the first step.
        final_fraction: multiplier of the last step.
    """

    needs_horizon: ClassVar[bool] = True

    peak_fraction: float = 0.45
    start_fraction: float = 0.1
    final_fraction: float = 0.001

    def __post_init__(self) -> None:
        checks.proportion("schedule.start_fraction", self.start_fraction)
        checks.fraction("schedule.final_fraction", self.final_fraction)
        if not 0 < self.peak_fraction <= 0.5:
            raise ConfigError(
                f"schedule.peak_fraction must be a number in (0, 0.5], got {self.peak_fraction!r}",
                "The way down is as long as the way up: set it to 0.5 or less.",
            )

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        last = known_horizon(total_steps) - 1
        peak = int(self.peak_fraction * last)
        start, end = self.start_fraction, self.final_fraction
        knots = ((0, start), (peak, 1.0), (2 * peak, start), (last, end))
        return PureSchedule(partial(piecewise_linear, knots))


def _check_divisor(value: float) -> None:
    checks.finite("schedule.factor", value)
    checks.at_least("schedule.factor", value, 1)


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": ConstantConfig,
    "plateau": PlateauConfig,
    "cosine": CosineConfig,
    "linear": LinearConfig,
    "one_cycle": OneCycleConfig,
    "step": StepConfig,
}
