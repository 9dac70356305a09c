"""A drawn split on disk: the text, and for each of its bytes what the process paid for it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lm.data.synthetic.process import LINE_END, Draw, Process
from lm.data.truth import NATS_DTYPE, RECALL_ENDS, RECALLED, Truth

_NATS, _RECALLED = "nats", "recalled"


def truth_of(folder: Path, split: str) -> Truth:
    """What `write_split` left beside a split's text."""
    recalled = folder / f"{split}.{_RECALLED}"
    return Truth(folder / f"{split}.{_NATS}", recalled if recalled.exists() else None)


def write_split(folder: Path, split: str, process: Process, drawn: Draw) -> None:
    """Write the words with a space between two on a line; a symbol's nats at its last letter.

    The first symbol's nats are divided among its letters, by the probability that a text begins
    with the first of them, so that a first token which is a part of it can be left out exactly.
    """
    words, ends_line = process.words, np.array([word == LINE_END for word in process.words])
    at_end = ends_line[drawn.symbols]
    spaced = ~at_end  # a space stands before each word but the first of a line
    spaced[0] = False
    spaced[1:] &= ~at_end[:-1]
    with_space = [b" " + word for word in words]
    text = b"".join(
        [
            with_space[symbol] if space else words[symbol]
            for symbol, space in zip(drawn.symbols.tolist(), spaced.tolist(), strict=True)
        ]
    )
    lengths = np.array([len(word) for word in words])[drawn.symbols] + spaced
    last = np.cumsum(lengths) - 1
    nats = np.zeros(len(text), NATS_DTYPE)
    nats[last] = drawn.nats
    nats[: lengths[0]] = _by_letter(words, process.first, int(drawn.symbols[0]))
    _put(folder / f"{split}.txt", text)
    _put(folder / f"{split}.{_NATS}", nats.tobytes())
    if drawn.recalled is not None:
        marks = np.repeat(drawn.recalled.astype(np.uint8) * RECALLED, lengths)
        marks[(last - lengths + 1)[spaced]] = 0
        marks[last[drawn.recalled]] = RECALL_ENDS
        _put(folder / f"{split}.{_RECALLED}", marks.tobytes())


def _by_letter(
    words: Sequence[bytes], first: Float[ndarray, " K"], symbol: int
) -> Float[ndarray, " L"]:
    """−log p of each letter of a text's first word, given the letters before it."""
    word = words[symbol]
    beginning = [
        sum(p for other, p in zip(words, first.tolist(), strict=True) if other.startswith(part))
        for part in (word[:length] for length in range(len(word)))
    ]
    return -np.diff(np.log([*beginning, first[symbol]]))


def _put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
