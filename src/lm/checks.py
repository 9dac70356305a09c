"""Range checks for configuration values: `optim.lr must be a finite number > 0, got nan`.

Each takes the dotted name that the user typed and the value; `None` means off and passes.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from lm.errors import ConfigError

# Far above all that has a meaning here; what is beyond would overflow somewhere, and later.
LARGEST = 1e12
# Below it float32 loses precision, and an epsilon soon is 0.
SMALLEST = 1e-37
MOST = (1 << 63) - 1
# Of what is held in memory at once: tokens, streams, samples.
MOST_HELD = 1 << 24


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {rule}, got {value!r}", f"Set {name} to {rule}.")


def positive(name: str, value: float | None) -> None:
    """A finite number above zero, and neither nothing nor overflow in float32."""
    if value is not None:
        _require(math.isfinite(value) and value > 0, name, "a finite number > 0", value)
        _require(value >= SMALLEST, name, f">= {SMALLEST:g}", value)
        at_most(name, value, LARGEST)


def non_negative(name: str, value: float | None) -> None:
    """A finite number, zero or above."""
    if value is not None:
        _require(math.isfinite(value) and value >= 0, name, "a finite number >= 0", value)
        at_most(name, value, LARGEST)


def finite(name: str, value: float | None) -> None:
    """Any finite number of a size that has a meaning."""
    if value is not None:
        _require(math.isfinite(value), name, "a finite number", value)
        _require(abs(value) <= LARGEST, name, f"from {-LARGEST:g} to {LARGEST:g}", value)


def at_least(name: str, value: float | None, minimum: int) -> None:
    """A count of at least `minimum`, and within 64 bits."""
    if value is not None:
        _require(value >= minimum, name, f">= {minimum}", value)
        at_most(name, value, MOST)


def at_most(name: str, value: float | None, maximum: float) -> None:
    """A count or size that is no slip of the keyboard, and no attack on the memory."""
    if value is not None:
        _require(value <= maximum, name, f"<= {maximum}", value)


def fraction(name: str, value: float | None) -> None:
    """A number in [0, 1): a probability that may not be certain, such as a dropout rate."""
    if value is not None:
        _require(0 <= value < 1, name, "a number in [0, 1)", value)


def proportion(name: str, value: float | None) -> None:
    """A number in (0, 1]: a share that may be the whole, such as top-p."""
    if value is not None:
        _require(0 < value <= 1, name, "a number in (0, 1]", value)


def one_of(name: str, value: object, options: Collection[object]) -> None:
    """One of the listed values."""
    if value is not None:
        listed = ", ".join(map(str, options))
        _require(value in options, name, f"one of {listed}", value)


def no_effect(group: str, config: Any, fields: Collection[str], because: str, remedy: str) -> None:
    """Fields of a dataclass that do nothing as things are, and so must be as they were.

    A setting that is silently ignored is a run that is not the one its user thinks of.
    """
    for field in dataclasses.fields(config):
        if field.name in fields and getattr(config, field.name) != field.default:
            default = "null" if field.default is None else repr(field.default)
            raise ConfigError(
                f"{group}.{field.name} is set, but {group}.{because}",
                f"{remedy}, or leave {group}.{field.name} at {default}.",
            )
