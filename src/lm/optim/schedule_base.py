"""What every learning-rate schedule has.

Convention: `multiplier(step)` is for the step to be taken when `step` steps have been done, so a
run of N steps uses step = 0 … N − 1. The peak is 1, and a decay ends at `final_fraction` in the
last step, N − 1. All but `plateau` are pure functions of the step: they have nothing to save.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lm.errors import CheckpointError, ConfigError

State = dict[str, float | int | None]


class Schedule:
    """A schedule in use; this base learns nothing from validation and so has no state."""

    __slots__ = ()

    def multiplier(self, step: int) -> float:
        """The factor on the learning rate for the step taken after `step` steps."""
        raise NotImplementedError

    def observe(self, loss: float) -> None:
        """Take note of a validation loss (mean nats per token)."""

    def state(self) -> State:
        """What `multiplier` depends on beside the step, as JSON."""
        return {}

    def load(self, state: Mapping[str, float | int | None]) -> None:
        """Go on from `state`.

        Raises:
            CheckpointError: the state is that of another kind of schedule.
        """
        if set(state) != set(self.state()):
            raise CheckpointError(
                f"the checkpoint's schedule state ({', '.join(sorted(state)) or 'none'}) "
                "is not of this run's kind of schedule",
                "Resume with the schedule of the checkpoint.",
            )


@dataclass(frozen=True, slots=True)
class PureSchedule(Schedule):
    """A schedule that is a function of the step alone."""

    function: Callable[[int], float]

    def multiplier(self, step: int) -> float:
        return self.function(step)


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """What every schedule has.

    Attributes:
        needs_horizon: whether it must know the number of steps of the run in advance.
    """

    group: ClassVar[str] = "schedule"
    needs_horizon: ClassVar[bool] = False

    def build(self, *, total_steps: int | None, epoch_of: Callable[[int], int]) -> Schedule:
        """The schedule for a run of `total_steps`, if that is known.

        Args:
            epoch_of: the epoch, from 0, that a step belongs to.

        Raises:
            ConfigError: the run's length is needed and unknown, or too short for the schedule.
        """
        raise NotImplementedError


def known_horizon(total_steps: int | None) -> int:
    """The run's length, for a schedule that needs it.

    Raises:
        ConfigError: it is unknown.
    """
    if total_steps is None:
        raise ConfigError(
            "the learning-rate schedule must know the length of the run, "
            "and no limit in steps, epochs or tokens is set",
            "Set trainer.max_steps, trainer.max_epochs or trainer.max_tokens, "
            "or choose schedule=constant.",
        )
    return total_steps
