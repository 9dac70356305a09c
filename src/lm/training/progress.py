"""Where a run stands (all that must survive a stop, as plain numbers) and when it ends."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lm.data.streams import Streams, Window
from lm.runtime.untrusted import as_count, as_number, check_names
from lm.training.config import TrainerConfig
from lm.training.windows import Windows


@dataclass(slots=True)
class Progress:
    """Counters of a run.

    Attributes:
        step: windows trained, skipped ones included.
        epoch: whole passes over the training split.
        position: steps of every stream done in this epoch.
        tokens: targets trained.
        seconds: wall-clock time, evaluation included, over all sessions.
        evaluated_step: the step of the last finished validation.
        logged_step: the step of the last log point.
        best_loss: lowest validation loss, at `best_step`.
        bad_evaluations: validations since without improvement.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluated_step: int = 0
    logged_step: int = 0
    best_loss: float | None = None
    best_step: int = 0
    bad_evaluations: int = 0

    def advance(self, window: Window, streams: Streams) -> None:
        """Count a trained window; wraps at the end of the epoch."""
        self.step += 1
        self.tokens += len(window.tokens) * streams.num_streams
        self.position += len(window.tokens)
        if self.position >= streams.length:
            self.position = 0
            self.epoch += 1

    def observe(self, loss: float) -> bool:
        """Count a validation; whether it is the best so far."""
        self.evaluated_step = self.step
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.best_step, self.bad_evaluations = loss, self.step, 0
            return True
        self.bad_evaluations += 1
        return False

    def summary(self, parameters: int) -> dict[str, object]:
        """How far the run has come, for its summary.

        Args:
            parameters: of its model.
        """
        return {
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_valid_loss": self.best_loss,
            "parameters": parameters,
        }

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Progress":
        """The inverse of `to_json`.

        Raises:
            CheckpointError: a counter is missing, unknown or none.
        """
        check_names(set(saved), {field.name for field in fields(cls)}, "state.progress")
        values: dict[str, Any] = {}
        for name, value in saved.items():
            full = f"state.progress.{name}"
            if name == "best_loss":
                values[name] = None if value is None else as_number(value, full)
            elif name == "seconds":
                values[name] = as_number(value, full, least=0)
            else:
                values[name] = as_count(value, full)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends.

    Attributes:
        total_steps: the horizon in steps, from the limits that have one; None with wall-clock
            time alone.
        total_tokens: the same in targets, for the bar.
    """

    config: TrainerConfig
    total_steps: int | None
    total_tokens: int | None

    @classmethod
    def of(cls, config: TrainerConfig, windows: Windows) -> "Limits":
        """Limits over this walk."""
        horizons = []
        if config.max_steps is not None:
            horizons.append(config.max_steps)
        if config.max_epochs is not None:
            horizons.append(windows.steps_in(config.max_epochs))
        if config.max_tokens is not None:
            horizons.append(windows.steps_for(config.max_tokens))
        total = min(horizons, default=None)
        if total is None:
            return cls(config, None, None)
        return cls(config, total, windows.tokens_in(total))

    def reached(self, progress: Progress) -> str | None:
        """The reason to end, or None."""
        config = self.config
        if self.total_steps is not None and progress.step >= self.total_steps:
            return f"{progress.step} steps done"
        if config.max_seconds is not None and progress.seconds >= config.max_seconds:
            return f"trainer.max_seconds={config.max_seconds:g} reached"
        if config.patience is not None and progress.bad_evaluations >= config.patience:
            return f"no improvement in {progress.bad_evaluations} validations"
        return None

    def raised(self, progress: Progress) -> list[str]:
        """Overrides with which a run that has ended goes on: every limit that it has reached."""
        config = self.config
        seconds, bad = round(progress.seconds), progress.bad_evaluations
        standings: dict[str, tuple[float | None, float, int]] = {
            "max_epochs": (config.max_epochs, progress.epoch, progress.epoch + 5),
            "max_steps": (config.max_steps, progress.step, 2 * progress.step),
            "max_tokens": (config.max_tokens, progress.tokens, 2 * progress.tokens),
            "max_seconds": (config.max_seconds, progress.seconds, max(1, 2 * seconds)),
            "patience": (config.patience, bad, 2 * bad),
        }
        return [
            f"trainer.{name}={more}"
            for name, (limit, reached, more) in standings.items()
            if limit is not None and reached >= limit
        ]
