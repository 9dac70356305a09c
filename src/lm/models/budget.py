"""Sizes from a budget of parameters, so that models of any kind can be compared as equals."""

import re
from collections.abc import Callable

from lm.errors import ConfigError

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_MOST = 1e15
_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)([kMGB]?)")


def parse_count(name: str, text: str) -> int:
    """A count such as `24M`, `2.5M`, `300k` or `1000000`.

    Raises:
        ConfigError: it is none, naming the field.
    """
    match = _COUNT.fullmatch(text.replace("_", ""))
    count = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0.5 < count < _MOST:
        raise ConfigError(
            f"{name} must be a number of parameters such as 24M or 300k, got {text!r}",
            f"Set {name}=24M.",
        )
    return round(count)


def largest_within(
    budget: int, total: Callable[[int], int], name: str, *, smallest: int = 1
) -> int:
    """The largest size whose `total` does not exceed the budget.

    Args:
        total: grows with the size.
        name: of the field, for the message.
        smallest: size that makes sense.

    Raises:
        ConfigError: the smallest size is too large.
    """
    if total(smallest) > budget:
        raise ConfigError(
            f"{name}: a model of hidden size {smallest} has {total(smallest):,} parameters, the "
            f"budget is {budget:,}",
            "Raise the budget, or set a smaller model.embedding_size or vocabulary.",
        )
    low, high = smallest, 2 * smallest
    while total(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= budget else (low, middle)
    return low
