"""Stretches of text with their tokens, and with what a model expected of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm.data.tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Tokens:
    """Consecutive bytes of a text with their tokens.

    Attributes:
        spans: of each token in `text`: first byte and the one after the last.
        unknown: which tokens stand for something outside the vocabulary.
    """

    text: bytes
    ids: NDArray[np.int64]
    spans: NDArray[np.int64]
    unknown: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, count: int, place: int | None = None) -> "tuple[Tokens, Tokens]":
        """The first `count` tokens, and the others.

        Args:
            place: the byte at which the text is divided; None is where the first of the others
                begins, or the end of the text.
        """
        if place is None:
            place = int(self.spans[count, 0]) if count < len(self) else len(self.text)
        head, tail = slice(count), slice(count, None)
        return (
            Tokens(self.text[:place], self.ids[head], self.spans[head], self.unknown[head]),
            Tokens(self.text[place:], self.ids[tail], self.spans[tail] - place, self.unknown[tail]),
        )


def joined_tokens(parts: Sequence[Tokens]) -> Tokens:
    """Consecutive stretches as one."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(part.text) for part in parts)])
    return Tokens(
        b"".join([part.text for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.spans + k for part, k in zip(parts, offsets, strict=False)]),
        np.concatenate([part.unknown for part in parts]),
    )


def encoded(tokenizer: Tokenizer, text: bytes) -> Tokens:
    """A text that may be encoded by itself.

    Raises:
        UnicodeDecodeError: the tokenizer needs UTF-8 and the text is not.
    """
    ids = tokenizer.encode(text)
    spans = tokenizer.spans(text, ids)
    return Tokens(text, ids, spans, tokenizer.is_unknown(text, ids, spans))


NO_TOKENS = Tokens(
    b"", np.empty(0, np.int64), np.empty((0, 2), np.int64), np.empty(0, np.bool_)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measures:
    """What a model expected of some consecutive tokens; NaN where there is no such number.

    Attributes:
        nats: −log p of each token.
        entropy: of the distribution before each token, in nats.
        rank: of each token in that distribution, 1 for the most probable.
        after: entropy after each token, where the next token is not drawn from that distribution,
            since a sentence ends; NaN elsewhere.
    """

    nats: NDArray[np.float64]
    entropy: NDArray[np.float64]
    rank: NDArray[np.float64]
    after: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.nats)

    def of(self, some: slice) -> "Measures":
        """Of some of the tokens."""
        return Measures(self.nats[some], self.entropy[some], self.rank[some], self.after[some])


def unmeasured(count: int) -> Measures:
    """Of tokens that nothing predicts."""
    return Measures(*np.full((4, count), np.nan))


def joined_measures(parts: Sequence[Measures]) -> Measures:
    """Of consecutive tokens."""
    return Measures(
        np.concatenate([part.nats for part in parts]),
        np.concatenate([part.entropy for part in parts]),
        np.concatenate([part.rank for part in parts]),
        np.concatenate([part.after for part in parts]),
    )
