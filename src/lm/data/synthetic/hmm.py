"""Hidden Markov models: a chain of states that nobody sees, each with its own symbols.

    z_t ~ A[z_{t−1}],   s_t ~ B[z_t],   A[i] ~ Dirichlet(α_A),   B[i] ~ Dirichlet(α_B)

The next symbol's probability depends on all symbols before it, through the distribution over
states, which the normalised forward algorithm carries along (Rabiner 1989, equations 19, 20, 91):

    a_1(i) = π(i) B[i, s_1],   a_t(j) = Σ_i â_{t−1}(i) A[i, j] B[j, s_t],   â_t = a_t / Σ_j a_t(j)
    p(s_t | s_1 … s_{t−1}) = Σ_j a_t(j)
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
from lm.data.synthetic.process import Draw, Process, cumulative, spellings, stationary


class HiddenMarkov(Process):
    """A hidden Markov model that starts in its stationary distribution.

    Args:
        transitions: A [S, S], from row to column.
        emissions: B [S, K], the symbols of each state.
    """

    def __init__(
        self, transitions: Float[ndarray, "S S"], emissions: Float[ndarray, "S K"]
    ) -> None:
        self.transitions, self.emissions = transitions, emissions
        self.words = spellings(emissions.shape[1])
        self.start = stationary(transitions)
        self.first = self.start @ emissions

    def draw(self, num_symbols: int, draws: np.random.Generator) -> Draw:
        states = self._states(draws.random(num_symbols))
        tables = cumulative(self.emissions)
        numbers = draws.random(num_symbols)
        symbols = np.empty(num_symbols, np.int64)
        for state, table in enumerate(tables):
            here = states == state
            symbols[here] = np.searchsorted(table, numbers[here], "right")
        return Draw(symbols, self.nats(symbols))

    def nats(self, symbols: Int[ndarray, " N"]) -> Float[ndarray, " N"]:
        """−log p of each symbol given all before it, by the forward algorithm."""
        # One product a step: â A and the emission of the symbol that was seen.
        seen = [self.transitions * column for column in self.emissions.T]
        probabilities = np.empty(len(symbols))
        belief = self.start * self.emissions[:, symbols[0]]
        probabilities[0] = total = belief.sum()
        later = tqdm(
            symbols[1:].tolist(), "forward", unit="tok", delay=0.5, disable=None, leave=False
        )
        for position, symbol in enumerate(later, 1):
            belief = (belief / total) @ seen[symbol]
            probabilities[position] = total = belief.sum()
        found: Float[ndarray, " N"] = -np.log(probabilities)
        return found

    def _states(self, numbers: Float[ndarray, " N"]) -> Int[ndarray, " N"]:
        tables = cumulative(self.transitions).tolist()
        table, states = cumulative(self.start).tolist(), []
        for number in numbers.tolist():
            states.append(bisect_right(table, number))
            table = tables[states[-1]]
        return np.array(states)


@dataclass(kw_only=True, slots=True)
class HmmConfig(SyntheticConfig):
    """A hidden Markov model.

    Attributes:
        num_states: S.
        num_symbols: K.
        transition_concentration: α_A; small keeps to few ways through the states.
        emission_concentration: α_B; small tells the states apart by their symbols.
    """

    kind: ClassVar[str] = "hmm"

    num_states: int = 8
    num_symbols: int = 16
    transition_concentration: float = 0.1
    emission_concentration: float = 0.2

    def __post_init__(self) -> None:
        SyntheticConfig.__post_init__(self)
        for name in ("num_states", "num_symbols"):
            checks.at_least(f"data.{name}", getattr(self, name), 2)
        table = self.num_states**2 * self.num_symbols
        checks.at_most("data.num_states ** 2 * data.num_symbols", table, 1 << 24)
        for name in ("transition_concentration", "emission_concentration"):
            check_concentration(f"data.{name}", getattr(self, name))

    def process(self, draws: np.random.Generator) -> HiddenMarkov:
        states = np.full(self.num_states, self.transition_concentration)
        symbols = np.full(self.num_symbols, self.emission_concentration)
        transitions = draws.dirichlet(states, self.num_states)
        return HiddenMarkov(transitions, draws.dirichlet(symbols, self.num_states))
