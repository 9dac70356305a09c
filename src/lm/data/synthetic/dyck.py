"""Brackets of k types, balanced and at most m deep: a line is one word of Dyck-(k, m).

    a b B A      `a` opens what `A` closes

The probabilities of the next symbol, from the stack of what is open (Hewitt et al. 2020, RNNs can
generate bounded hierarchical languages with optimal memory, section 5, with q for their ½):

    at a line's start      open 1                 each type 1/k of it
    nothing is open        open q, line end 1 − q
    1 … m − 1 are open     open q, close 1 − q    the latest alone can be closed
    m are open             close 1
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lm import checks
from lm.data.synthetic.config import SyntheticConfig
from lm.data.synthetic.process import (
    LINE_END,
    Draw,
    Process,
    cumulative,
    entropy,
    spellings,
    stationary,
    uniforms,
)
from lm.errors import ConfigError

LONGEST_LINE = 10_000


class Dyck(Process):
    """Lines of balanced brackets; symbol i opens, k + i closes type i, 2k ends the line."""

    def __init__(self, num_types: int, max_depth: int, opening: float) -> None:
        self.num_types, self.max_depth, self.opening = num_types, max_depth, opening
        opens = spellings(num_types)
        self.words = [*opens, *(word.upper() for word in opens), LINE_END]
        self.first = self.distribution((), line_start=True)
        self.entropy_rate = self._entropy_rate()

    def distribution(self, stack: Sequence[int], *, line_start: bool) -> Float[ndarray, " K"]:
        """Of the next symbol.

        Args:
            stack: the types of the open brackets, the latest last.
            line_start: whether it is the first of a line.
        """
        opening = self.opening
        if line_start or len(stack) == self.max_depth:
            opening = float(line_start)
        distribution = np.zeros(2 * self.num_types + 1)
        distribution[: self.num_types] = opening / self.num_types
        otherwise = self.num_types + stack[-1] if stack else -1
        distribution[otherwise] = 1 - opening
        return distribution

    def draw(self, num_symbols: int, draws: np.random.Generator) -> Draw:
        symbols: list[int] = []
        nats: list[float] = []
        stack: list[int] = []
        numbers, line_start = uniforms(draws), True
        tables: dict[tuple[bool, bool, int], tuple[list[float], list[float]]] = {}
        while len(symbols) < num_symbols or not line_start:
            key = (line_start, len(stack) == self.max_depth, stack[-1] if stack else -1)
            if key not in tables:
                tables[key] = _table(self.distribution(stack, line_start=line_start))
            sums, costs = tables[key]
            symbol = bisect_right(sums, next(numbers))
            symbols.append(symbol)
            nats.append(costs[symbol])
            line_start = symbol == 2 * self.num_types
            if symbol < self.num_types:
                stack.append(symbol)
            elif not line_start:
                stack.pop()
        return Draw(np.array(symbols), np.array(nats))

    def _entropy_rate(self) -> float:
        """−Σ π(d) Σ p log p over the depths d, the line's start being one more of them."""
        start, depths = self.max_depth + 1, self.max_depth + 2
        rows = np.zeros((depths, depths))
        distributions = np.empty((depths, len(self.words)))
        for depth in range(depths):
            at_start = depth == start
            stack = [] if at_start else [0] * depth
            distribution = self.distribution(stack, line_start=at_start)
            opening = distribution[: self.num_types].sum()
            if opening:
                rows[depth, 1 if at_start else depth + 1] = opening
            rows[depth, depth - 1 if stack else start] += 1 - opening
            distributions[depth] = distribution
        return float(stationary(rows) @ entropy(distributions))


def _table(distribution: Float[ndarray, " K"]) -> tuple[list[float], list[float]]:
    """Cumulative sums, and nats of each symbol (of an impossible one: 0, never drawn)."""
    logs = np.log(distribution, out=np.zeros_like(distribution), where=distribution > 0)
    return cumulative(distribution).tolist(), (-logs).tolist()


@dataclass(kw_only=True, slots=True)
class DyckConfig(SyntheticConfig):
    """Bounded Dyck words.

    Attributes:
        num_types: k, kinds of brackets.
        max_depth: m, most that are open at once.
        opening: q, probability of opening another where closing would do as well.
    """

    kind: ClassVar[str] = "dyck"

    num_types: int = 4
    max_depth: int = 4
    opening: float = 0.5

    def __post_init__(self) -> None:
        SyntheticConfig.__post_init__(self)
        for name in ("num_types", "max_depth"):
            checks.at_least(f"data.{name}", getattr(self, name), 1)
        checks.at_most("data.num_types", self.num_types, 1 << 16)
        checks.at_most("data.max_depth", self.max_depth, 1 << 16)
        checks.positive("data.opening", self.opening)
        checks.fraction("data.opening", self.opening)
        # A walk that rises q / (1 − q) times as often as it falls is back at 0 after about that
        # ratio to the power of its ceiling.
        rise = self.max_depth * (math.log(self.opening) - math.log1p(-self.opening))
        if rise > math.log(LONGEST_LINE):
            raise ConfigError(
                f"data.opening={self.opening:g} with data.max_depth={self.max_depth} makes lines"
                f" of more than {LONGEST_LINE:,} symbols",
                "Lower data.opening to 0.5, or data.max_depth.",
            )

    def process(self, draws: np.random.Generator) -> Dyck:
        return Dyck(self.num_types, self.max_depth, self.opening)
