"""A search for positive numbers of which not even the size is known: one at a time, by factors."""

import math
from collections.abc import Callable, Mapping

_MOST_TRIALS = 40


def descend(
    loss: Callable[[Mapping[str, float]], float], start: Mapping[str, float], *, factor: float
) -> dict[str, float]:
    """The point of a grid of powers of `factor` around `start` from which no step lowers the loss.

    Coordinate descent: each number in turn is multiplied or divided as long as that helps, until
    none does. A loss that is not finite counts as infinitely large.

    Args:
        loss: asked once for each point.
    """
    known: dict[tuple[int, ...], float] = {}

    def point(powers: tuple[int, ...]) -> dict[str, float]:
        return {
            name: value * factor**power
            for (name, value), power in zip(start.items(), powers, strict=True)
        }

    def at(powers: tuple[int, ...]) -> float:
        if powers not in known:
            value = loss(point(powers)) if len(known) < _MOST_TRIALS else math.inf
            known[powers] = value if math.isfinite(value) else math.inf
        return known[powers]

    best = (0,) * len(start)
    moved = True
    while moved:
        moved = False
        for k in range(len(start)):
            for direction in (1, -1):
                while at(new := _shifted(best, k, direction)) < at(best):
                    best, moved = new, True
    return point(best)


def _shifted(powers: tuple[int, ...], k: int, by: int) -> tuple[int, ...]:
    return (*powers[:k], powers[k] + by, *powers[k + 1 :])
