"""Bytes as tokens: nothing to learn, nothing lost."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lm.data.corpus import Document
from lm.data.pieces import Cut
from lm.data.tokenizers.base import FORMAT, Tokenizer, TokenizerConfig, printable


class ByteTokenizer(Tokenizer):
    """Each byte is its own id: 256 tokens, lossless on anything."""

    kind: ClassVar[str] = "byte"
    cut: ClassVar[Cut] = Cut(re.compile(b""))

    @property
    def vocab_size(self) -> int:
        return 256

    def encode(self, text: bytes) -> NDArray[np.int64]:
        return np.frombuffer(text, np.uint8).astype(np.int64)

    def spans(self, text: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        starts = np.arange(len(ids), dtype=np.int64)
        return np.stack([starts, starts + 1], axis=1)

    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> bytes:
        return bytes(map(int, ids))

    def token(self, token_id: int) -> str:
        return printable(bytes([token_id]))

    def to_json(self) -> dict[str, object]:
        return {"format": FORMAT, "kind": self.kind}


def byte_from_json(data: dict[str, object]) -> ByteTokenizer:
    """The inverse of `ByteTokenizer.to_json`."""
    return ByteTokenizer()


@dataclass(kw_only=True, slots=True)
class ByteConfig(TokenizerConfig):
    """Bytes: 256 tokens, lossless, nothing to set."""

    def build(self, documents: Sequence[Document]) -> ByteTokenizer:
        return ByteTokenizer()
