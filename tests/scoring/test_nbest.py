"""Hypotheses are ranked by score + weight · ln p + word_bonus · words."""

import math
from collections.abc import Iterable, Iterator

import pytest
import torch
from scoring_problem import model_of, together, tokenizer_of

from lm.errors import DataError
from lm.models import LanguageModel
from lm.models.kneser_ney import Counter
from lm.models.ngram import NgramConfig
from lm.scoring.nbest import Rescorer, Rescoring
from lm.scoring.source import Part

LISTS = [
    b"u1 -10 dog the the sees\n",
    b"u1\t-10\tthe dog sees\n",
    b"  u1 -11  the  cat sees \r\n",
    b"\n",
    b"u2 -1.5e0 the\n",
    b"u2 -1\n",
]


def ranked(
    rule: Rescoring, lines: Iterable[bytes] = LISTS, model: LanguageModel | None = None
) -> dict[str, list[object]]:
    tokenizer = tokenizer_of("word")
    rescorer = Rescorer(model or model_of(tokenizer.vocab_size), tokenizer, rule)
    return together(rescorer.ranked(([Part(line)] for line in lines), "lists"))


def log_prob(text: bytes) -> float:
    """ln p of the words and the line end, after a line end."""
    tokenizer = tokenizer_of("word")
    ids = torch.from_numpy(tokenizer.encode(b"\n" + text + b"\n"))[:, None]
    return -model_of(tokenizer.vocab_size)(ids[:-1], ids[1:]).nll.sum().item()


def test_the_model_decides_as_much_as_its_weight_says() -> None:
    rows = ranked(Rescoring(weight=0.0))
    assert rows["id"] == [b"u1", b"u1", b"u1", b"u2", b"u2"]
    assert rows["combined"] == rows["score"] == [-10, -10, -11, -1, -1.5]
    assert rows["text"][2:] == [b"the  cat sees ", b"", b"the"]
    rows = ranked(Rescoring(weight=0.7, word_bonus=0.25))
    for k, text in enumerate(rows["text"]):
        assert isinstance(text, bytes)
        assert rows["log_prob"][k] == pytest.approx(log_prob(text), abs=1e-5)
        assert rows["words"][k] == len(text.split())
        wanted = rows["score"][k] + 0.7 * log_prob(text) + 0.25 * len(text.split())  # type: ignore[operator]
        assert rows["combined"][k] == pytest.approx(wanted, abs=1e-5)
    assert rows["combined"][:3] == sorted(rows["combined"][:3], reverse=True)  # type: ignore[type-var]


def test_costs_count_with_a_minus_and_the_best_stand_alone() -> None:
    lists = [b"u 3 the\n", b"u 1 dog\n", b"u 2 cat\n", b"v 1 the\n"]
    assert ranked(Rescoring(weight=0.0), lists)["text"][:3] == [b"the", b"cat", b"dog"]
    costs = ranked(Rescoring(weight=0.0, costs=True, best=True), lists)
    assert (costs["text"], costs["combined"]) == ([b"dog", b"the"], [-1, -1])


def test_a_model_of_the_language_finds_the_sentence() -> None:
    """The recogniser prefers the wrong one by a little; who has read the language knows better."""
    tokenizer = tokenizer_of("word")
    model = NgramConfig(order=3).build(tokenizer.vocab_size, seed=1)
    ids = torch.from_numpy(tokenizer.encode(b"\n" + b"the cat sees the mat .\n" * 6))[:, None]
    counter = Counter(3, tokenizer.vocab_size)
    for _ in range(3):
        counter.read(ids[:-1], ids[1:])
        counter.end_pass()
    model.levels = [level for level, _ in counter.levels()]
    lists = [
        b"u -4.0 the cat sees mat the .\n", b"u -5.0 the cat sees the mat .\n",
        b"u -4.5 the cat the cat sees .\n",
    ]  # fmt: skip
    assert ranked(Rescoring(weight=0.0, best=True), lists)["text"] == [b"the cat sees mat the ."]
    best = ranked(Rescoring(best=True), lists, model)
    assert best["text"] == [b"the cat sees the mat ."]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"u -1 the\n", b"alone\n"], "lists, line 2 has no score"),
        ([b"u high the\n"], "lists, line 1: the score 'high' is no finite number"),
        ([b"u nan the\n"], "the score 'nan' is no finite number"),
        ([b"u 1 a\n", b"v 1 a\n", b"u 2 b\n"], "lists, line 3: id u has been before"),
    ],
)
def test_what_is_no_list_is_refused_with_its_line(lines: list[bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ranked(Rescoring(), lines)


def test_from_a_pipe_each_id_is_ranked_when_the_next_begins() -> None:
    arrived: list[bytes] = []

    def lines() -> Iterator[list[Part]]:
        for line in LISTS:
            arrived.append(line)
            yield [Part(line, awaited=True)]

    tokenizer = tokenizer_of("word")
    rescorer = Rescorer(model_of(tokenizer.vocab_size), tokenizer, Rescoring())
    tables = rescorer.ranked(lines(), "a pipe", at_once=True)
    assert next(tables)["id"] == [b"u1"] * 3
    assert arrived == LISTS[:5]
    assert together(tables)["id"] == [b"u2"] * 2


def test_unknown_words_are_counted() -> None:
    rows = ranked(Rescoring(), [b"u 0 the zebra\n"])
    assert rows["unknown"] == [1]
    assert math.isfinite(rows["log_prob"][0])  # type: ignore[arg-type]
