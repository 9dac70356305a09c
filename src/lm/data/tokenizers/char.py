"""Unicode code points as tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lm import checks
from lm.data.corpus import Document
from lm.data.pieces import Cut, pieces
from lm.data.tokenizers.base import FORMAT, Tokenizer, TokenizerConfig, printable

UNKNOWN = "<unk>"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CUT = Cut(re.compile(rb"(?=[^\x80-\xbf])"), utf8=True)


class CharTokenizer(Tokenizer):
    """Id 0 is `<unk>`, id k is the k-th of `characters`; lossless on texts of these characters.

    Args:
        characters: the vocabulary, distinct.
        min_count: how often a character must occur to enter the vocabulary when it is extended.
    """

    kind: ClassVar[str] = "char"
    cut: ClassVar[Cut] = _CUT
    unknown_id: int | None = 0

    def __init__(self, characters: str, min_count: int) -> None:
        self.characters = characters
        self.min_count = min_count
        points = _code_points(characters.encode())
        # One entry more than the largest code point: all above it are clipped there, unknown.
        self._ids = np.zeros(int(points.max(initial=-1)) + 2, np.int64)
        self._ids[points] = np.arange(1, len(points) + 1)

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.characters)

    def encode(self, text: bytes) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self._ids[np.minimum(_code_points(text), len(self._ids) - 1)]
        return ids

    def spans(self, text: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        starts = np.flatnonzero((np.frombuffer(text, np.uint8) & 0xC0) != 0x80)
        return np.stack([starts, np.append(starts[1:], len(text))[: len(starts)]], axis=1)

    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> bytes:
        table = _REPLACEMENT + self.characters
        return "".join([table[i] for i in ids]).encode()

    def token(self, token_id: int) -> str:
        return UNKNOWN if token_id == 0 else printable(self.decode([token_id]))

    def first_token_bytes(self, text: bytes, ids: NDArray[np.int64]) -> int:
        return len(text[:4].decode("utf-8", "ignore")[0].encode())

    def to_json(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "min_count": self.min_count,
            "characters": self.characters,
        }

    def extended(self, documents: Sequence[Document]) -> "CharTokenizer":
        known = set(self.characters)
        new = [c for c in _frequent_characters(documents, self.min_count) if c not in known]
        return CharTokenizer(self.characters + "".join(new), self.min_count)


def char_from_json(data: dict[str, object]) -> CharTokenizer:
    """The inverse of `CharTokenizer.to_json`.

    Raises:
        ValueError: the data is not what `to_json` gives.
    """
    characters, min_count = data.get("characters"), data.get("min_count")
    if not isinstance(characters, str) or type(min_count) is not int or min_count < 1:
        raise ValueError("'characters' and 'min_count' must be a string and a number from 1 on")
    if len(set(characters)) != len(characters):
        raise ValueError("a character is listed twice")
    return CharTokenizer(characters, min_count)


@dataclass(kw_only=True, slots=True)
class CharConfig(TokenizerConfig):
    """The code points of the training split, in their own order, after `<unk>`.

    Attributes:
        min_count: rarer characters are unknown.
    """

    min_count: int = 1

    def __post_init__(self) -> None:
        checks.at_least("tokenizer.min_count", self.min_count, 1)

    def build(self, documents: Sequence[Document]) -> CharTokenizer:
        return CharTokenizer(
            "".join(_frequent_characters(documents, self.min_count)), self.min_count
        )


def _code_points(text: bytes) -> NDArray[np.int64]:
    return np.frombuffer(text.decode().encode("utf-32-le"), "<u4").astype(np.int64)


def _frequent_characters(documents: Sequence[Document], min_count: int) -> list[str]:
    counts = np.zeros(0x110000, np.int64)
    for piece in pieces(documents, _CUT, "count characters"):
        found = np.bincount(_code_points(piece.text))
        counts[: len(found)] += found
    return [chr(point) for point in np.flatnonzero(counts >= min_count)]
