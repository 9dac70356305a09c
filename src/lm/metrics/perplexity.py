"""The arithmetic of what we report: one sum of nats, the counts, and what follows from them."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from lm.metrics import tags


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model predicts a split.

    Attributes:
        nats: Σ −log p(target) in nats, summed in float64.
        num_tokens: predicted tokens: N − 1 of a split of N, the first being context.
        num_bytes: bytes of the original text that the predicted tokens cover.
        num_words: whitespace-separated words plus one per line end, in those bytes.
        num_streams: 1 is exact; more start each stream without its predecessor's state.
        lossy: why bits per byte would not be those of the original text, or None.
        floor_nats: Σ −log p of the same targets under the source that drew the text, below which
            no model comes on average; None where the source is unknown.
        num_recalled: symbols that follow from ones before them, as in the copy task.
        num_recalled_right: of these, the ones each of whose tokens is the model's first choice.
    """

    nats: float
    num_tokens: int
    num_bytes: int
    num_words: int
    num_streams: int
    lossy: str | None = None
    floor_nats: float | None = None
    num_recalled: int = 0
    num_recalled_right: int = 0

    @property
    def loss(self) -> float:
        """J: mean nats per token."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """exp(J), per token."""
        return exp(self.loss)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of the original text; None where the tokenization is lossy."""
        if self.lossy is not None or self.num_bytes == 0:
            return None
        return self.nats / math.log(2) / self.num_bytes

    @property
    def word_perplexity(self) -> float | None:
        """exp(nats per word), comparable over tokenizers; None where undefined."""
        if self.lossy is not None or self.num_words == 0:
            return None
        return exp(self.nats / self.num_words)

    @property
    def floor(self) -> float | None:
        """Mean nats per token under the true source."""
        return None if self.floor_nats is None else self.floor_nats / self.num_tokens

    @property
    def excess(self) -> float | None:
        """Mean nats per token above the floor: the divergence from the source, but for chance."""
        return None if self.floor is None else self.loss - self.floor

    @property
    def recall_accuracy(self) -> float | None:
        """Share of the recalled symbols that were predicted; None where there are none."""
        return self.num_recalled_right / self.num_recalled if self.num_recalled else None

    def scalars(self, split: str) -> dict[str, float]:
        """What is logged for a split, by tag."""
        values = {f"{split}/loss": self.loss, f"{split}/perplexity": self.perplexity}
        if self.bits_per_byte is not None:
            values[f"{split}/bits_per_byte"] = self.bits_per_byte
        if self.word_perplexity is not None:
            values[f"{split}/word_perplexity"] = self.word_perplexity
        if self.floor is not None and self.excess is not None:
            values |= {**floor_scalars(split, self.floor), tags.EXCESS.format(split): self.excess}
        if self.recall_accuracy is not None:
            values[tags.RECALL_ACCURACY.format(split)] = self.recall_accuracy
        return values

    def to_json(self) -> dict[str, Any]:
        """The sum and the counts as plain data; JSON has no infinity, so such nats are None."""
        return {**asdict(self), "nats": self.nats if math.isfinite(self.nats) else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Score":
        """The inverse of `to_json`."""
        return cls(**{**data, "nats": math.inf if data["nats"] is None else data["nats"]})

    def describe(self) -> str:
        """One line for people: the numbers, how exact they are, and always the counts."""
        bits = self.bits_per_byte
        per_byte = f"{bits:.4f}" if bits is not None else f"n/a: {self.lossy}"
        exact = "exact" if self.num_streams == 1 else f"{self.num_streams} streams"
        words = self.word_perplexity
        per_word = f"  per word {words:.1f}" if words is not None else ""
        return (
            f"loss {self.loss:.4f}  perplexity {self.perplexity:.2f}"
            f"  bits/byte {per_byte}{per_word}{self._to_source()}"
            f"  ({exact}; {self.num_tokens:,} tokens,"
            f" {self.num_bytes:,} bytes, {self.num_words:,} words)"
        )

    def _to_source(self) -> str:
        """How far the model is from the source of the text, where that is known."""
        text = ""
        if self.floor is not None and self.excess is not None:
            share = f" ({self.excess / self.floor:+.1%})".replace("%", " %") if self.floor else ""
            text = (
                f"  floor {self.floor:.4f} (perplexity {exp(self.floor):.2f}),"
                f" excess {self.excess:.4f} nats{share}"
            )
        if self.recall_accuracy is not None:
            accuracy = f"{self.recall_accuracy:.2%}".replace("%", " %")
            text += f"  recalled {accuracy} of {self.num_recalled:,}"
        return text


def floor_scalars(split: str, floor: float) -> dict[str, float]:
    """A floor and its perplexity by tag.

    Args:
        floor: mean nats per token.
    """
    return {
        tags.FLOOR.format(split): floor,
        tags.FLOOR_PERPLEXITY.format(split): exp(floor),
    }


def exp(loss: float) -> float:
    """exp that says infinity instead of raising: a diverged model has a perplexity too."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
