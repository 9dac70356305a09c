"""What a tokenizer is, and the configuration that builds one."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lm.data.corpus import Document
from lm.data.pieces import Cut
from lm.errors import ConfigError

FORMAT = 1


class Tokenizer(ABC):
    """A fixed map between bytes and token ids 0 … `vocab_size` − 1.

    Attributes:
        kind: its name in `tokenizer.json`.
        cut: where a text may be divided without changing its tokens.
        unknown_id: the token for what is outside the vocabulary; None when there is no such thing.
        rewrites_whitespace: whether decoding may give other whitespace than was encoded.
        reserved: matches words that decode to something else.
    """

    kind: ClassVar[str]
    cut: ClassVar[Cut]
    rewrites_whitespace: ClassVar[bool] = False
    reserved: ClassVar[re.Pattern[bytes] | None] = None
    unknown_id: int | None = None

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids."""

    @abstractmethod
    def encode(self, text: bytes) -> NDArray[np.int64]:
        """The token ids of a text.

        Raises:
            UnicodeDecodeError: the tokenizer needs UTF-8 and the text is not.
        """

    def encode_all(self, texts: Sequence[bytes]) -> list[NDArray[np.int64]]:
        """`encode` of each text; faster than one by one where the tokenizer knows how."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> bytes:
        """The text of token ids: any prefix of a valid sequence will do."""

    @abstractmethod
    def token(self, token_id: int) -> str:
        """A token for human eyes, control characters escaped."""

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """All there is to know, as `tokenizer_from_json` reads it."""

    def extended(self, documents: Sequence[Document]) -> "Tokenizer":
        """This vocabulary with its ids, and after it the new symbols of a corpus.

        Raises:
            ConfigError: the vocabulary of this kind of tokenizer is closed.
        """
        raise ConfigError(
            f"a {self.kind} tokenizer has no vocabulary to extend: it encodes every text already",
            "Leave the vocabulary extension off.",
        )

    def count_unknown(self, text: bytes, ids: NDArray[np.int64]) -> int:
        """How many of the `ids` of `text` stand for something outside the vocabulary."""
        return 0 if self.unknown_id is None else int(np.count_nonzero(ids == self.unknown_id))

    @abstractmethod
    def spans(self, text: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in `text` each of its `ids` lies: first byte and the one after the last [N, 2].

        Spans ascend and do not overlap; what lies between them is whitespace that the tokenizer
        drops.
        """

    def is_unknown(
        self, text: bytes, ids: NDArray[np.int64], spans: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which of the `ids` of `text` stand for something outside the vocabulary [N]."""
        return np.zeros(len(ids), np.bool_) if self.unknown_id is None else ids == self.unknown_id

    @cached_property
    def line_end(self) -> int:
        """The token that ends a line and begins the next, or 0 where no single one does."""
        ids = self.encode(b"\n")
        return int(ids[0]) if len(ids) == 1 else 0

    def first_token_bytes(self, text: bytes, ids: NDArray[np.int64]) -> int:
        """How many bytes of `text` the first of its `ids` stands for."""
        return len(self.decode(ids[:1]))

    def token_ends(self, text: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The offset in `text` behind each of its `ids`, for a text without unknown tokens."""
        return np.cumsum(self._lengths[ids])

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        """Bytes that each token stands for, where tokens put together are the text."""
        return np.array([len(self.decode([i])) for i in range(self.vocab_size)], np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: equal exactly when the tokenizers are."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """What every tokenizer's configuration has."""

    group: ClassVar[str] = "tokenizer"

    def build(self, documents: Sequence[Document]) -> Tokenizer:
        """A tokenizer for the training split given as `documents`."""
        raise NotImplementedError

    def build_by(self, documents: Sequence[Document], workers: int | None) -> Tokenizer:
        """The same by that many processes, where this is what takes the time.

        Args:
            workers: at most; None is as many as there are cores.
        """
        return self.build(documents)

    def identity(self) -> dict[str, object]:
        """What decides the tokenizer besides the documents; the cache of trained ones needs it."""
        return {"config": type(self).__qualname__, **asdict(self)}


def printable(raw: bytes) -> str:
    """Bytes for human eyes: UTF-8 where it is, control characters and the rest escaped."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
