"""Texts, tokenizers and models that the tests of scoring share."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.tokenizers import (
    BpeConfig,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
)
from lm.evaluation import evaluate
from lm.models import CELLS, LanguageModel, RecurrentModel
from lm.models.ngram import NgramConfig
from lm.scoring.columns import COLUMNS, Table
from lm.scoring.scorer import Carry, Scorer
from lm.scoring.units import Level

TRAINED_ON = (
    "the cat sees the mat .\nthe dog, one bird's log (and more.forward ones):\n    x = naïve\n" * 30
)
# Each with what a tokenizer may trip over; all but the first have unknown words and characters.
TEXTS = {
    "plain": b"the cat sees the mat .\nthe dog sees the log .\n",
    "unknown": "the zebra sees Ω mats .\nthe <unk> dog\n".encode(),
    "crlf": b"the cat\r\nsees  the\tmat .\r\n",
    "no final newline": b"the cat sees the mat .\nthe dog",
    "empty lines": b"\n\n  the cat \n\n\nsees  \n  \n",
    "one line": b"the cat sees the mat .",
    "non-ascii": "the naïve cat\u2028sees\u00a0the \ufeffmat …\n日本 語\n".encode(),
    "code": b"def f(self):\n    return self.forward(x).\n\n\n        y\n",
}
KINDS = ("word", "bpe", "char", "byte")


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    if kind == "byte":
        return ByteTokenizer()
    if kind == "char":
        return CharTokenizer("".join(sorted(set(TRAINED_ON))), 1)
    if kind == "word":
        words = sorted({word.encode() for word in TRAINED_ON.split()})
        return WordTokenizer([*words, b"<eos>", b"<unk>"], b"<unk>", 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.txt")
        path.write_text(TRAINED_ON, encoding="utf-8")
        return BpeConfig(vocab_size=300).build([Document(path)])


@cache
def model_of(vocab_size: int, **fields: Any) -> RecurrentModel:
    """A model that is sure of itself, so that its state matters."""
    sizes = {"embedding_size": 6, "hidden_size": 8, **fields}
    model = CELLS["lstm"](**sizes).build(vocab_size, seed=3)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.requires_grad_(False)


def ngram_of(vocab_size: int) -> LanguageModel:
    return NgramConfig(order=3).build(vocab_size, seed=1)


def scored(
    text: bytes,
    kind: str,
    level: Level,
    *,
    state: Carry = Carry.carry,
    model: LanguageModel | None = None,
    columns: tuple[str, ...] | None = None,
    **named: Any,
) -> tuple[dict[str, list[Any]], Scorer]:
    """The columns of all rows, and the scorer with its totals."""
    tokenizer = tokenizer_of(kind)
    columns = columns or COLUMNS[level]
    scorer = Scorer(
        model or model_of(tokenizer.vocab_size), tokenizer, level=level, columns=columns, **named
    )
    return together(scorer.texts(text, state)), scorer


def together(tables: Any) -> dict[str, list[Any]]:
    whole: dict[str, list[Any]] = {}
    table: Table
    for table in tables:
        for name, values in table.items():
            whole.setdefault(name, []).extend(values)
    return whole


def evaluated(
    folder: Path, text: bytes, kind: str, unit: Unit = Unit.stream, model: Any = None
) -> NDArray[np.float64]:
    """The nats of each token but the first, as `lm evaluate` has them."""
    tokenizer, path = tokenizer_of(kind), folder / "text.txt"
    path.write_bytes(text)
    documents = (Document(path),)
    corpus = Corpus("toy", documents, documents, documents)
    store = prepare(corpus, tokenizer, unit, folder / "cache", splits=["test"]).stores["test"]
    nats = torch.empty(len(store) - 1, dtype=torch.float64)
    evaluate(model or model_of(tokenizer.vocab_size), store, unit=unit, out=nats, window=50)
    return nats.numpy()
