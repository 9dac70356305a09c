"""What `lm sweep` searches: the user's configuration of `lm train`, and the space around it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import DictConfig

from lm.config import (
    Invocation,
    SweepConfig,
    TrainConfig,
    compose,
    dump,
    key_of,
    narrowed,
    parse,
    portable_config,
    prepare,
    takes_whole_numbers,
    value_at,
)
from lm.config.fields import plain
from lm.errors import ConfigError
from lm.models import NgramConfig
from lm.sweeping.methods import Sampler
from lm.sweeping.space import Parameter, Value, contains, corners, listed, written

_TRIALS = 20
_TRAINING = {part.name for part in fields(TrainConfig)}
_OWN = {part.name for part in fields(SweepConfig)} - _TRAINING | {"sweep"}


@dataclass(frozen=True, slots=True)
class Search:
    """A search space and how its trials are trained.

    Attributes:
        given: the user's overrides of `lm train`.
        added: what a trial is told besides: threads, and to leave out what only the best one needs.
        composed: their configuration, the default that trials are held against.
        space: with whole numbers where the fields take no others.
        default: what the default has for the parameters; empty if that is outside the space.
    """

    given: tuple[str, ...]
    added: tuple[str, ...]
    composed: DictConfig
    space: dict[str, Parameter]
    default: dict[str, Value]

    @classmethod
    def of(cls, config: SweepConfig, call: Invocation, cores: int) -> "Search":
        """The search that a command line asks for.

        Raises:
            ConfigError: a parameter's name is no field's, or a file of the group `sweep` sets what
                its trials would not get.
        """
        given = tuple(text for text in call.overrides if key_of(text).partition(".")[0] not in _OWN)
        composed = compose("train", given)
        if plain(narrowed(call.config, TrainConfig)) != plain(composed):
            raise ConfigError(
                "sweep= chooses a file that sets more than the space and how it is searched",
                "Put what its trials have in common into an experiment, or on the command line.",
            )
        space = {
            name: parameter.whole(name) if takes_whole_numbers(composed, name) else parameter
            for name, parameter in config.space.items()
        }
        default = {name: value_at(composed, name) for name in space}
        inside = all(contains(space[name], value) for name, value in default.items())
        return cls(given, _added(config, given, cores), composed, space, default if inside else {})

    def check(self, sampler: Sampler) -> None:
        """Compose trials in which every end and every choice of the space occurs.

        Raises:
            ConfigError: one of them is no configuration of `lm train`, or a grid has no end.
        """
        parse(self.composed, TrainConfig)
        endless = [name for name, parameter in self.space.items() if listed(parameter) is None]
        if sampler is Sampler.grid and endless:
            raise ConfigError(
                f"sampler=grid tries every value, and {endless[0]} has no end of them",
                f"Give {endless[0]} a step or choices, such as {endless[0]}=range(…) or a,b,c.",
            )
        for values in corners(self.space):
            self.composed_of(values)

    def trials(self, config: SweepConfig) -> int:
        """How many trials the study is to have."""
        if config.sampler is not Sampler.grid:
            return config.trials or _TRIALS
        # The default is one of the combinations, or comes before them.
        size = math.prod(len(listed(parameter) or ()) for parameter in self.space.values())
        return min(config.trials or size + 1, size if self.default else size + 1)

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """The command line of `lm train` that has these values."""
        return [*self.given, *(prepare(f"{n}={written(value)}") for n, value in values.items())]

    def overrides_of(self, values: Mapping[str, Value], resumed: Path | None) -> list[str]:
        """What a trial's process is told."""
        resume = [] if resumed is None else [prepare(f"resume={resumed}")]
        return [*self.overrides(values), *self.added, *resume]

    def composed_of(self, values: Mapping[str, Value]) -> DictConfig:
        """The configuration of `lm train` with these values."""
        composed = compose("train", self.overrides(values))
        parse(composed, TrainConfig)
        return composed

    def definition(self) -> str:
        """The default's configuration, by which a study is known again."""
        return dump(portable_config(self.composed))


def _added(config: SweepConfig, given: Sequence[str], cores: int) -> tuple[str, ...]:
    """What a trial is told besides, unless the user said something about it.

    A search must not look at the test split; who reproduces the best trial does.
    """
    told = {"trainer.bar": "false", "trainer.test": "false"}
    if not isinstance(config.model, NgramConfig):
        told["trainer.sample_tokens"] = "0"
    if config.workers > 1:
        told["runtime.threads"] = str(max(1, cores // config.workers))
    said = {*map(key_of, given), *config.space}
    return tuple(f"{name}={value}" for name, value in told.items() if name not in said)
