"""Associative recall: pairs of keys and values, a wait, one of the keys, and its value.

    c B f A a B Wait Wait Ask f A

Keys (lower case) are drawn without replacement, values (upper case) uniformly, and the key that is
asked for uniformly among those of the line (Graves, Wayne & Danihelka 2014, Neural Turing machines,
section 4.3; Arora et al. 2024, Zoology, section 3). The floor of a line of n pairs over N keys and
V values, with a wait of L steps that are drawn from D distractors:

    Σ_{i<n} log (N − i) + n log V + L log D + log n       and the answer costs nothing
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from lm import checks
from lm.data.synthetic.config import SyntheticConfig
from lm.data.synthetic.process import LINE_END, Draw, Process, spellings
from lm.errors import ConfigError

WAIT, MARKER = b"Wait", b"Ask"


class Recalling(Process):
    """Lines of pairs, the wait, the marker, a key, its value and a line end.

    A single distractor is the word `Wait` and costs nothing; several are `Waita`, `Waitb` and so
    on, drawn uniformly.
    """

    def __init__(
        self, num_keys: int, num_values: int, num_pairs: int, lag: int, num_distractors: int
    ) -> None:
        self.num_keys, self.num_values, self.num_pairs = num_keys, num_values, num_pairs
        self.lag, self.num_distractors = lag, num_distractors
        keys = spellings(num_keys)
        values = [word.upper() for word in spellings(num_values)]
        waits = [WAIT]
        if num_distractors > 1:
            waits = [WAIT + word for word in spellings(num_distractors)]
        self.words = [*keys, *values, *waits, MARKER, LINE_END]
        self.first = np.zeros(len(self.words))
        self.first[:num_keys] = 1 / num_keys
        self.costs = self._costs()
        self.entropy_rate = float(self.costs.mean())

    def draw(self, num_symbols: int, draws: np.random.Generator) -> Draw:
        num_lines = -(-num_symbols // len(self.costs))
        lines = self._lines(num_lines, draws)
        recalled = np.zeros(lines.shape, bool)
        recalled[:, -2] = True
        return Draw(lines.ravel(), np.tile(self.costs, num_lines), recalled.ravel())

    def _lines(self, num_lines: int, draws: np.random.Generator) -> Int[ndarray, "L S"]:
        pairs, first_wait = self.num_pairs, self.num_keys + self.num_values
        marker, end = len(self.words) - 2, len(self.words) - 1
        # The order of uniform numbers is a uniform permutation.
        keys = draws.random((num_lines, self.num_keys)).argsort(axis=1)[:, :pairs]
        values = self.num_keys + draws.integers(self.num_values, size=(num_lines, pairs))
        waits = first_wait + draws.integers(self.num_distractors, size=(num_lines, self.lag))
        asked = draws.integers(pairs, size=(num_lines, 1))
        column = np.full((num_lines, 1), marker)
        parts = (
            np.stack([keys, values], axis=2).reshape(num_lines, 2 * pairs),
            waits,
            column,
            np.take_along_axis(keys, asked, axis=1),
            np.take_along_axis(values, asked, axis=1),
            np.full_like(column, end),
        )
        return np.concatenate(parts, axis=1)

    def _costs(self) -> Float[ndarray, " S"]:
        """Nats of each position of a line, the same in every line."""
        costs = []
        for used in range(self.num_pairs):
            costs += [math.log(self.num_keys - used), math.log(self.num_values)]
        costs += [math.log(self.num_distractors)] * self.lag
        return np.array([*costs, 0.0, math.log(self.num_pairs), 0.0, 0.0])


@dataclass(kw_only=True, slots=True)
class RecallConfig(SyntheticConfig):
    """Associative recall, a line for each question.

    Attributes:
        num_keys, num_values: to draw from.
        num_pairs: pairs of a line.
        lag: steps between the pairs and the question; 0 is none.
        num_distractors: words that the wait is drawn from; 1 is a wait that is always the same.
    """

    kind: ClassVar[str] = "recall"

    num_keys: int = 8
    num_values: int = 8
    num_pairs: int = 3
    lag: int = 5
    num_distractors: int = 1

    def __post_init__(self) -> None:
        SyntheticConfig.__post_init__(self)
        checks.at_least("data.num_keys", self.num_keys, 2)
        checks.at_least("data.num_values", self.num_values, 2)
        checks.at_least("data.num_pairs", self.num_pairs, 1)
        checks.at_least("data.lag", self.lag, 0)
        checks.at_least("data.num_distractors", self.num_distractors, 1)
        for name in ("num_keys", "num_values", "num_pairs", "lag", "num_distractors"):
            checks.at_most(f"data.{name}", getattr(self, name), 1 << 16)
        if self.num_pairs > self.num_keys:
            raise ConfigError(
                f"data.num_pairs={self.num_pairs} exceeds data.num_keys={self.num_keys}: the keys"
                " of a line differ",
                "Set a smaller data.num_pairs, or a larger data.num_keys.",
            )
        if self.num_distractors > 1 and self.lag == 0:
            raise ConfigError(
                f"data.num_distractors={self.num_distractors} has no effect with data.lag=0",
                "Set data.lag, or leave data.num_distractors at 1.",
            )

    def process(self, draws: np.random.Generator) -> Recalling:
        return Recalling(
            self.num_keys, self.num_values, self.num_pairs, self.lag, self.num_distractors
        )
