"""Markov chains: the next symbol depends on the last k, by rows drawn once from a Dirichlet.

    p(s_t | s_1 … s_{t−1}) = P[s_{t−k} … s_{t−1}, s_t],   P[c] ~ Dirichlet(α, …, α)
    entropy rate           = −Σ_c π(c) Σ_s P[c, s] log P[c, s],   π = π P

(Cover & Thomas 2006, Elements of Information Theory, theorem 4.2.4.)
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from tqdm import tqdm

from lm import checks
from lm.data.synthetic.config import SyntheticConfig
from lm.data.synthetic.dirichlet import check_concentration
from lm.data.synthetic.process import Draw, Process, cumulative, entropy, spellings, stationary

# Above, the table of transitions would take longer to make than to train on.
MOST_TRANSITIONS = 1 << 20


class Markov(Process):
    """A chain of some order that starts in its stationary distribution.

    Args:
        rows: [K^order, K], the distribution of the next symbol after each context.
    """

    def __init__(self, rows: Float[ndarray, "C K"], order: int) -> None:
        self.rows, self.order = rows, order
        self.num_symbols = rows.shape[1]
        self.words = spellings(self.num_symbols)
        self.start = stationary(rows, order)
        self.first = self._beginnings(1)
        self.entropy_rate = float(self.start @ entropy(rows))

    def draw(self, num_symbols: int, draws: np.random.Generator) -> Draw:
        numbers = draws.random(num_symbols + 1)
        context = bisect_right(cumulative(self.start).tolist(), float(numbers[0]))
        digits = [context // self.num_symbols**k % self.num_symbols for k in range(self.order)]
        symbols, contexts = digits[::-1][:num_symbols], [0] * min(self.order, num_symbols)
        tables, modulus = cumulative(self.rows).tolist(), len(self.rows)
        left = numbers[1 + len(symbols) :].tolist()
        for number in tqdm(left, "draw", unit="tok", delay=0.5, disable=None, leave=False):
            symbol = bisect_right(tables[context], number)
            contexts.append(context)
            symbols.append(symbol)
            context = (context * self.num_symbols + symbol) % modulus
        drawn = np.array(symbols)
        nats = -np.log(self.rows[np.array(contexts), drawn])
        nats[: self.order] = self._nats_of_beginning(drawn[: self.order])
        return Draw(drawn, nats)

    def _nats_of_beginning(self, symbols: Int[ndarray, " k"]) -> Float[ndarray, " k"]:
        """Of the first symbols, each given those before it, as the stationary chain has them."""
        number, joint = 0, [1.0]
        for length, symbol in enumerate(symbols, 1):
            number = number * self.num_symbols + int(symbol)
            joint.append(float(self._beginnings(length)[number]))
        return -np.diff(np.log(joint))

    def _beginnings(self, length: int) -> Float[ndarray, " C"]:
        """The distribution of a text's first `length` symbols, at most `order`."""
        sums: Float[ndarray, " C"] = self.start.reshape(self.num_symbols**length, -1).sum(1)
        return sums


@dataclass(kw_only=True, slots=True)
class MarkovConfig(SyntheticConfig):
    """A Markov chain.

    Attributes:
        num_symbols: K.
        order: k, the symbols that the next one depends on.
        concentration: α of the Dirichlet; small is predictable, large is uniform.
    """

    kind: ClassVar[str] = "markov"

    num_symbols: int = 16
    order: int = 2
    concentration: float = 0.5

    def __post_init__(self) -> None:
        SyntheticConfig.__post_init__(self)
        checks.at_least("data.num_symbols", self.num_symbols, 2)
        checks.at_most("data.num_symbols", self.num_symbols, MOST_TRANSITIONS)
        checks.at_least("data.order", self.order, 1)
        checks.at_most("data.order", self.order, 20)
        transitions = self.num_symbols ** (self.order + 1)
        checks.at_most("data.num_symbols ** (data.order + 1)", transitions, MOST_TRANSITIONS)
        check_concentration("data.concentration", self.concentration)

    def process(self, draws: np.random.Generator) -> Markov:
        shape = np.full(self.num_symbols, self.concentration)
        return Markov(draws.dirichlet(shape, self.num_symbols**self.order), self.order)
