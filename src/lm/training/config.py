"""How a run trains: streams and windows, limits, validation, saving and logging."""

from dataclasses import dataclass, field
from typing import ClassVar

from lm import checks
from lm.errors import ConfigError
from lm.optim.averaging import AveragingConfig
from lm.optim.clipping import ClipConfig
from lm.training.communication import CommunicationConfig
from lm.training.windows import RandomWindowConfig


@dataclass(kw_only=True, slots=True)
class TrainerConfig:
    """The trainer.

    Attributes:
        batch_size: B, global streams.
        window: T, steps of truncated back-propagation.
        random_window: draw each window's length instead.
        accumulate: forward and backward passes per update; splits the streams, never the time.
        communication: what several processes send each other.
        clip: how gradients are clipped.
        averaging: validate, save and use averages of the weights.
        max_epochs, max_steps, max_tokens, max_seconds: limits; the first one reached ends the run.
        valid_every: steps between validations; None is once per epoch.
        valid_streams: streams of validation during training; 1 is exact and slow.
        patience: validations without improvement before the run stops early; None is off.
        max_bad_steps: non-finite steps in a row that end the run.
        save_every: steps between checkpoints besides those at validation; None is off.
        save_in_background: let training go on while a checkpoint is written; costs the memory of
            a copy of it.
        keep: newest checkpoints kept, all of which verify, besides the best.
        log_every: steps between log points; the device is read only then.
        inspect_every: steps between looks at gradients over lag, gates and updates, as `lm inspect`
            takes them of a checkpoint; None is off.
        tokens_axis: tokens instead of steps on TensorBoard's x-axis.
        sample_tokens: tokens of the sample generated at every validation; 0 is off.
        sample_prompt: what a sample begins with; None is what suits the corpus.
        sample_temperature: of the samples' softmax; 0 takes the likeliest token.
        test: evaluate the best checkpoint on the test split at the end, exactly.
        bar: show a progress bar; off a terminal there is none in any case.
    """

    group: ClassVar[str] = "trainer"

    batch_size: int = 16
    window: int = 64
    random_window: RandomWindowConfig = field(default_factory=RandomWindowConfig)
    accumulate: int = 1
    communication: CommunicationConfig = field(default_factory=CommunicationConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    max_epochs: int | None = 10
    max_steps: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    valid_every: int | None = None
    valid_streams: int = 16
    patience: int | None = None
    max_bad_steps: int = 20
    save_every: int | None = None
    save_in_background: bool = False
    keep: int = 2
    log_every: int = 20
    inspect_every: int | None = None
    tokens_axis: bool = False
    sample_tokens: int = 120
    sample_prompt: str | None = None
    sample_temperature: float = 0.8
    test: bool = True
    bar: bool = True

    def __post_init__(self) -> None:
        for name in (
            "batch_size", "window", "accumulate", "max_epochs", "max_steps", "max_tokens",
            "valid_every", "valid_streams", "patience", "max_bad_steps", "save_every", "keep",
            "log_every", "inspect_every",
        ):  # fmt: skip
            checks.at_least(f"trainer.{name}", getattr(self, name), 1)
        checks.at_least("trainer.sample_tokens", self.sample_tokens, 0)
        for name in ("batch_size", "window", "valid_streams", "sample_tokens"):
            checks.at_most(f"trainer.{name}", getattr(self, name), checks.MOST_HELD)
        checks.positive("trainer.max_seconds", self.max_seconds)
        checks.non_negative("trainer.sample_temperature", self.sample_temperature)
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"trainer.accumulate={self.accumulate} exceeds trainer.batch_size="
                f"{self.batch_size}: each pass needs a stream",
                "Set a smaller trainer.accumulate.",
            )
        self._check_rounds()
        limits = (self.max_epochs, self.max_steps, self.max_tokens, self.max_seconds)
        if all(limit is None for limit in limits):
            raise ConfigError(
                "the run has no end: every trainer.max_* is null",
                "Set trainer.max_epochs, max_steps, max_tokens or max_seconds.",
            )

    def _check_rounds(self) -> None:
        """What needs all processes alike can happen between two rounds of local steps only.

        Raises:
            ConfigError: an interval that ends within a round.
        """
        steps = self.communication.local_steps
        for name in ("log_every", "valid_every", "save_every", "inspect_every"):
            every = getattr(self, name)
            if every is not None and every % steps:
                raise ConfigError(
                    f"trainer.{name}={every} is no multiple of trainer.communication.local_steps="
                    f"{steps}",
                    f"Set trainer.{name}={-(-every // steps) * steps}.",
                )
