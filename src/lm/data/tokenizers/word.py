"""Words as tokens: what published word-level perplexities are measured on."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lm import checks
from lm.data.corpus import Document
from lm.data.pieces import WHITESPACE, Cut
from lm.data.tokenizers.base import FORMAT, Tokenizer, TokenizerConfig, printable
from lm.data.tokenizers.word_counts import EOS, ranked_words, split_words
from lm.errors import ConfigError, DataError

_CUT = Cut(re.compile(rb"(?<=[ \t\n\r\v\f])"), forced=False)
_TOKEN = re.compile(rb"\n|[^ \t\n\r\v\f]+")
_FIRST = re.compile(rb"[ \t\r\v\f]*(?:\n|[^ \t\n\r\v\f]+)")


def _whole_word(word: bytes) -> re.Pattern[bytes]:
    # The word comes first, so that the library looks for it as fast as for a plain string.
    escaped = re.escape(word)
    return re.compile(escaped + rb"(?<![^ \t\n\r\v\f]" + escaped + rb")(?![^ \t\n\r\v\f])")


class _Ids(dict[bytes, int]):
    """Ids by word; a method lookup with a default in C is what makes encoding fast."""

    unknown_id: int

    def __missing__(self, word: bytes) -> int:
        return self.unknown_id


class WordTokenizer(Tokenizer):
    """Words between ASCII whitespace, and `<eos>` for each newline.

    A last line without a newline gets no `<eos>`: nothing is added that is not in the text. All
    other whitespace decodes to single spaces. The words `<eos>` and `unknown` in a text are the
    tokens of these names.

    Args:
        words: the vocabulary, distinct, with `<eos>` and `unknown`.
        unknown: the word that stands for all others.
        min_count: how often a word must occur to enter the vocabulary when it is extended.
    """

    kind: ClassVar[str] = "word"
    cut: ClassVar[Cut] = _CUT
    rewrites_whitespace: ClassVar[bool] = True
    reserved: ClassVar[re.Pattern[bytes] | None] = _whole_word(EOS)

    def __init__(self, words: Sequence[bytes], unknown: bytes, min_count: int) -> None:
        self.words = list(words)
        self.unknown = unknown
        self.min_count = min_count
        self._ids = _Ids(zip(self.words, range(len(self.words)), strict=True))
        assert len(self._ids) == len(self.words), "a word is listed twice"
        self._ids.unknown_id = self.unknown_id = dict.__getitem__(self._ids, unknown)
        self._eos_id = dict.__getitem__(self._ids, EOS)
        self._literal_unknown = _whole_word(unknown)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def encode(self, text: bytes) -> NDArray[np.int64]:
        words = split_words(text)
        return np.fromiter(map(self._ids.__getitem__, words), np.int64, len(words))

    def spans(self, text: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        found = [match.span() for match in _TOKEN.finditer(text)]
        return np.array(found, np.int64).reshape(-1, 2)

    def is_unknown(
        self, text: bytes, ids: NDArray[np.int64], spans: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = ids == self.unknown_id
        for k in np.flatnonzero(found):
            found[k] = text[slice(*spans[k])] != self.unknown
        return found

    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> bytes:
        eos = self._eos_id
        text = b" ".join([b"\n" if i == eos else self.words[i] for i in ids])
        return text.replace(b" \n", b"\n").replace(b"\n ", b"\n")

    def token(self, token_id: int) -> str:
        return printable(self.words[token_id])

    def count_unknown(self, text: bytes, ids: NDArray[np.int64]) -> int:
        found = int(np.count_nonzero(ids == self.unknown_id))
        return found and found - len(self._literal_unknown.findall(text))

    def first_token_bytes(self, text: bytes, ids: NDArray[np.int64]) -> int:
        match = _FIRST.match(text)
        assert match is not None, "a text with tokens has a word or a newline"
        return match.end()

    def token_ends(self, text: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        # The whitespace before a word is its own.
        return np.array([match.end() for match in _FIRST.finditer(text)], np.int64)

    def to_json(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "min_count": self.min_count,
            "unknown": _text(self.unknown),
            "words": [_text(word) for word in self.words],
        }

    def extended(self, documents: Sequence[Document]) -> "WordTokenizer":
        frequent = ranked_words(documents, _CUT, self.min_count, None, [])
        known = set(self.words)
        new = [word for word in frequent if word not in known]
        return WordTokenizer(self.words + new, self.unknown, self.min_count)


def word_from_json(data: dict[str, object]) -> WordTokenizer:
    """The inverse of `WordTokenizer.to_json`.

    Raises:
        ValueError: the data is not what `to_json` gives.
    """
    words, unknown, min_count = data.get("words"), data.get("unknown"), data.get("min_count")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("'words' must be a list of strings")
    if not isinstance(unknown, str) or type(min_count) is not int or min_count < 1:
        raise ValueError("'unknown' and 'min_count' must be a string and a number from 1 on")
    listed = [_raw(word) for word in words]
    return _checked(listed, _raw(unknown), min_count)


def _checked(words: list[bytes], unknown: bytes, min_count: int) -> WordTokenizer:
    seen: set[bytes] = set()
    for number, word in enumerate(words, 1):
        if word in seen or word.split() != [word]:
            fault = "listed twice" if word in seen else "not one word"
            raise ValueError(f"entry {number}, {_text(word)!r}, is {fault}")
        seen.add(word)
    if not {EOS, unknown} <= seen:
        raise ValueError(f"{_text(EOS)} or {_text(unknown)} is missing")
    return WordTokenizer(words, unknown, min_count)


@dataclass(kw_only=True, slots=True)
class WordConfig(TokenizerConfig):
    """The words of the training split by falling count, ties by their bytes.

    Attributes:
        min_count: rarer words are unknown.
        max_size: at most so many tokens, `<eos>` and the unknown word included.
        vocabulary: a file with one word a line to use instead of counting, in its order;
            `<eos>` and the unknown word are appended when it lacks them.
        unknown: the word that stands for all others; added when the text does not have it.
    """

    min_count: int = 1
    max_size: int | None = None
    vocabulary: str | None = None
    unknown: str = "<unk>"

    def __post_init__(self) -> None:
        checks.at_least("tokenizer.min_count", self.min_count, 1)
        checks.at_least("tokenizer.max_size", self.max_size, 3)
        word = self.unknown.encode("utf-8", "surrogateescape")
        if word.split() != [word] or word == EOS:
            raise ConfigError(
                f"tokenizer.unknown must be one word other than <eos>, got {self.unknown!r}",
                "Leave it at its default, <unk>.",
            )
        if self.vocabulary is not None and (self.min_count > 1 or self.max_size is not None):
            raise ConfigError(
                "tokenizer.vocabulary is a complete list, but min_count or max_size is set too",
                "Set one or the other.",
            )

    def build(self, documents: Sequence[Document]) -> WordTokenizer:
        return self.build_by(documents, 1)

    def build_by(self, documents: Sequence[Document], workers: int | None) -> WordTokenizer:
        unknown = _raw(self.unknown)
        if self.vocabulary is not None:
            return _listed(Path(self.vocabulary), unknown)
        words = ranked_words(
            documents, _CUT, self.min_count, self.max_size, [EOS, unknown], workers
        )
        return WordTokenizer(words, unknown, self.min_count)

    def identity(self) -> dict[str, object]:
        listed = None if self.vocabulary is None else _read(Path(self.vocabulary))
        digest = None if listed is None else hashlib.sha256(listed).hexdigest()
        return {**TokenizerConfig.identity(self), "vocabulary": digest}


def _listed(path: Path, unknown: bytes) -> WordTokenizer:
    words = [word for line in _read(path).split(b"\n") if (word := line.strip(WHITESPACE))]
    if not words:
        raise DataError(f"{path} has no words", "A vocabulary has one word a line, each once.")
    words += [word for word in (EOS, unknown) if word not in words]
    try:
        return _checked(words, unknown, 1)
    except ValueError as error:
        raise DataError(
            f"{path}: {error}", "A vocabulary has one word a line, each once."
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read tokenizer.vocabulary {path}: {error.strerror}", "Check the path."
        ) from error


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _raw(word: str) -> bytes:
    return word.encode("utf-8", "surrogateescape")
