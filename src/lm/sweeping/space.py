"""The search space: what a sweep may choose, and how it is written as an override."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lm import checks
from lm.errors import ConfigError

Value = str | int | float | bool | None
"""Of a parameter; a list is the text that it has on the command line, such as `[64,32]`."""


@dataclass(kw_only=True, slots=True)
class Parameter:
    """What a sweep may choose for one field or group: a range, or a list of values.

    Attributes:
        low, high: the ends of a range, which may be chosen too.
        log: spread the choice evenly over orders of magnitude, as suits learning rates.
        step: between neighbouring values from `low` on; None is every number between, and every
            whole one where the field takes no others.
        choices: the values themselves, instead of a range; of a group, its options.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: list[Any] | None = None

    def check(self, name: str) -> None:
        """Refuse what is no range and no list.

        Args:
            name: of the parameter in the space.

        Raises:
            ConfigError: naming what is wrong with it.
        """
        if self.choices is not None:
            self._check_choices(name)
            return
        if self.low is None or self.high is None:
            raise ConfigError(
                f"space: {name} has neither both ends of a range nor choices",
                f"Write {name}: {{low: …, high: …}} or {name}: {{choices: […]}}.",
            )
        for end, value in (("low", self.low), ("high", self.high)):
            checks.finite(f"space: {end} of {name}", value)
        checks.positive(f"space: step of {name}", self.step)
        if self.low >= self.high:
            raise ConfigError(
                f"space: low of {name} must be below its high, got {self.low:g} and {self.high:g}",
                "Exchange them, or leave the parameter out.",
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise ConfigError(
                f"space: log of {name} needs low > 0 and no step, got low={self.low:g} and"
                f" step={self.step}",
                "Drop log or step, or raise low.",
            )

    def _check_choices(self, name: str) -> None:
        assert self.choices is not None
        if any(value is not None for value in (self.low, self.high, self.step)) or self.log:
            raise ConfigError(f"space: {name} has choices and a range", "Take one of them out.")
        checks.at_least(f"space: len(choices) of {name}", len(self.choices), 1)
        for value in self.choices:
            if not isinstance(value, Value):
                raise ConfigError(
                    f"space: choices of {name} are numbers, texts, true, false or null, got"
                    f" {value}",
                    f"Write a list as text: '{json.dumps(value, separators=(',', ':'))}'.",
                )
        if len({written(value) for value in self.choices}) < len(self.choices):
            raise ConfigError(f"space: {name} has a choice twice", "Take it out.")

    def whole(self, name: str) -> "Parameter":
        """The same range of whole numbers.

        Raises:
            ConfigError: its ends or steps are none.
        """
        if self.choices is not None:
            return self
        for end, value in (("low", self.low), ("high", self.high), ("step", self.step)):
            if value is not None and value != int(value):
                raise ConfigError(
                    f"space: {name} takes whole numbers, got {end}={value:g}",
                    f"Set a whole number for {end}.",
                )
        assert self.low is not None
        assert self.high is not None
        step = None if self.log else int(self.step or 1)
        return Parameter(low=int(self.low), high=int(self.high), log=self.log, step=step)

    @property
    def last(self) -> float:
        """The largest value that can be reached from `low`."""
        assert self.low is not None
        assert self.high is not None
        if self.step is None:
            return self.high
        # 0.1 is not a tenth: what lies within rounding of the end is at the end.
        return self.low + self.step * math.floor((self.high - self.low) / self.step + 1e-9)


def listed(parameter: Parameter) -> list[Value] | None:
    """All values that it may have; None where there is no end of them."""
    if parameter.choices is not None:
        return parameter.choices
    if parameter.step is None or parameter.low is None:
        return None
    count = round((parameter.last - parameter.low) / parameter.step) + 1
    # What is added up is off by rounding, which would be another value than the one typed.
    return [round(parameter.low + k * parameter.step, 12) for k in range(count)]


def grid(space: Mapping[str, Parameter]) -> Iterator[dict[str, Value]]:
    """Every combination of values, the last parameter changing fastest; none without an end."""
    values = [listed(parameter) or [] for parameter in space.values()]
    return (dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values))


def corner(parameter: Parameter, number: int) -> Value:
    """Its lowest value, its highest, and so on; each choice in turn."""
    if parameter.choices is not None:
        choice: Value = parameter.choices[number % len(parameter.choices)]
        return choice
    return parameter.last if number % 2 else parameter.low


def corners(space: dict[str, Parameter]) -> list[dict[str, Value]]:
    """Trials in which every end and every choice occurs: what can be wrong with a space shows."""
    count = max((len(p.choices or ()) for p in space.values()), default=0)
    return [{n: corner(p, k) for n, p in space.items()} for k in range(max(2, count))]


def written(value: object) -> str:
    """A value as it stands in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else str(value)


def contains(parameter: Parameter, value: object) -> bool:
    """Whether a field's value is one that the sweep may choose."""
    if parameter.choices is not None:
        return written(value) in map(written, parameter.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    assert parameter.low is not None
    steps = 0.0 if parameter.step is None else (value - parameter.low) / parameter.step
    return parameter.low <= value <= parameter.last and abs(steps - round(steps)) < 1e-9


def described(params: Mapping[str, Value]) -> str:
    """Parameters for people, on one line."""
    return "  ".join(f"{name}={shown(value)}" for name, value in params.items()) or "the default"


def shown(value: Value) -> str:
    """A value for people: four digits say enough."""
    return f"{value:.4g}" if isinstance(value, float) else written(value)
