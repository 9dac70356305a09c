"""What all of a text comes to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.metrics.perplexity import exp
from lm.scoring.columns import Table
from lm.scoring.tokens import Measures, Tokens
from lm.scoring.units import IS_SPACE, NEWLINE


@dataclass(slots=True)
class Totals:
    """Sums over a text, fed stretch by stretch.

    Attributes:
        nats: Σ −log p of the tokens that have a prediction.
        num_predicted: how many have.
        num_tokens: all of them.
        num_words: whitespace-separated words.
        num_unknown: tokens that stand for something outside the vocabulary.
    """

    nats: float = 0.0
    num_predicted: int = 0
    num_tokens: int = 0
    num_words: int = 0
    num_unknown: int = 0
    _previous: int = NEWLINE

    def see(self, tokens: Tokens) -> None:
        """Count the next stretch of text."""
        codes = np.frombuffer(tokens.text, np.uint8)
        if len(codes):
            space = IS_SPACE[np.append(self._previous, codes)]
            self.num_words += int(np.count_nonzero(space[:-1] & ~space[1:]))
            self._previous = int(codes[-1])
        self.num_tokens += len(tokens)
        self.num_unknown += int(np.count_nonzero(tokens.unknown))

    def add(self, measures: Measures) -> None:
        """Add what was expected of the next tokens."""
        known = measures.nats[~np.isnan(measures.nats)]
        self.nats += float(known.sum())
        self.num_predicted += len(known)

    @property
    def bits(self) -> float:
        """Surprisal of the whole text."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """Per predicted token; NaN where none was predicted."""
        return exp(self.nats / self.num_predicted) if self.num_predicted else math.nan

    def table(self, columns: Sequence[str]) -> Table:
        """The row of the document."""
        row: dict[str, object] = {
            "tokens": self.num_predicted,
            "words": self.num_words,
            "unknown": self.num_unknown,
            "surprisal": self.bits,
            "perplexity": self.perplexity,
        }
        return {name: [row[name]] for name in columns}

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.bits:,.1f} bits for {self.num_predicted:,} of {self.num_tokens:,} tokens,"
            f" {self.num_words:,} words: perplexity {self.perplexity:.2f} per token"
        )

    def describe_unknown(self, name: str) -> str:
        """What the unknown ones mean.

        Args:
            name: of the token that stands for them.
        """
        share = self.num_unknown / self.num_tokens
        return (
            f"{self.num_unknown:,} tokens ({share:.1%}) are unknown to the model: their surprisal"
            f" is that of {name}, the class of all that it does not know, not of the word itself"
        )
