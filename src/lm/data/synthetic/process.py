"""What a process is: it draws symbols and says what each of them cost at best."""

import string
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

LINE_END = b"\n"
_BLOCK = 1 << 16
# Of a lazy power iteration; a chain that needs more hardly leaves where it starts.
_MOST_ITERATIONS = 20_000


@dataclass(frozen=True, slots=True)
class Draw:
    """Consecutive symbols.

    Attributes:
        symbols: numbers of the process's words.
        nats: −log p(symbol | all before it) under the process itself.
        recalled: symbols that follow from ones before them, where a model's memory shows; None
            where the process has no such.
    """

    symbols: Int[ndarray, " N"]
    nats: Float[ndarray, " N"]
    recalled: Bool[ndarray, " N"] | None = None


class Process(ABC):
    """A stochastic process over words, with known probabilities.

    Attributes:
        words: the spelling of each symbol: letters, or `LINE_END`.
        first: distribution of a text's first symbol.
        entropy_rate: nats per symbol of an endless text; None where there is no closed form.
    """

    words: list[bytes]
    first: Float[ndarray, " K"]
    entropy_rate: float | None = None

    @abstractmethod
    def draw(self, num_symbols: int, draws: np.random.Generator) -> Draw:
        """A text of `num_symbols`, or of the lines that these begin."""


def spellings(count: int, letters: str = string.ascii_lowercase) -> list[bytes]:
    """The numbers below `count` in letters, all of one width, so that no word begins another."""
    width = 1
    while len(letters) ** width < count:
        width += 1
    return ["".join(word).encode() for word in islice(product(letters, repeat=width), count)]


def cumulative(distribution: Float[ndarray, "*C K"]) -> Float[ndarray, "*C K"]:
    """Cumulative sums that end in 1 exactly.

    `bisect_right` of a uniform number in [0, 1) then never picks what has probability 0.
    """
    sums = np.cumsum(distribution, axis=-1)
    scaled: Float[ndarray, "*C K"] = sums / sums[..., -1:]
    return scaled


def uniforms(draws: np.random.Generator) -> Iterator[float]:
    """Endless numbers from [0, 1), drawn by the block since one at a time is slow."""
    while True:
        yield from draws.random(_BLOCK).tolist()


def entropy(rows: Float[ndarray, "C K"]) -> Float[ndarray, " C"]:
    """−Σ p log p of each row in nats, with 0 log 0 = 0."""
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    found: Float[ndarray, " C"] = -(rows * logs).sum(-1)
    return found


def stationary(rows: Float[ndarray, "C K"], order: int = 1) -> Float[ndarray, " C"]:
    """The distribution over contexts that a Markov chain returns to itself.

    By power iteration of the lazy chain, which stays where it is half of the time: it has the same
    stationary distribution and no period.

    Args:
        rows: distribution of the next of K symbols after each of the K^order contexts, numbered in
            base K with the latest symbol last.
    """
    num_contexts, num_symbols = rows.shape
    assert num_contexts == num_symbols**order, (rows.shape, order)
    forgotten = num_contexts // num_symbols  # contexts of all symbols but the oldest
    moves = rows.reshape(num_symbols, forgotten, num_symbols)
    current = np.full(num_contexts, 1 / num_contexts)
    for _ in range(_MOST_ITERATIONS):
        moved = np.einsum("ac,acs->cs", current.reshape(num_symbols, forgotten), moves).ravel()
        following = (current + moved) / 2
        following /= following.sum()
        if np.abs(following - current).sum() < 1e-15:
            break
        current = following
    return current
