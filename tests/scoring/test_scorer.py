"""Rows hold the model's own numbers: those of evaluation, of a sum over the vocabulary, by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scoring_problem import (
    KINDS,
    TEXTS,
    evaluated,
    model_of,
    ngram_of,
    scored,
    together,
    tokenizer_of,
)

from lm.data.corpus import Unit
from lm.errors import NumericError
from lm.models import CELLS
from lm.models.recurrent_config import HeadKind
from lm.scoring import scorer as scorer_module
from lm.scoring.columns import COLUMNS
from lm.scoring.scorer import Carry, Scorer
from lm.scoring.source import Part
from lm.scoring.units import Level

LN2 = math.log(2)


def bits(values: list[float]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEXTS)
def test_tokens_and_totals_are_those_of_evaluate(tmp_path: Path, kind: str, name: str) -> None:
    text = TEXTS[name]
    wanted = evaluated(tmp_path, text, kind)
    for window in (7, 1024):
        rows, scorer = scored(text, kind, Level.token, window=window)
        first, *others = bits(rows["surprisal"])
        assert math.isnan(first)
        np.testing.assert_allclose(np.array(others) * LN2, wanted, atol=1e-5)
        totals = scorer.totals
        assert totals.num_predicted == len(wanted)
        assert totals.nats / totals.num_predicted == pytest.approx(wanted.mean(), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEXTS)
def test_every_level_adds_up_to_the_same(kind: str, name: str) -> None:
    """Chain rule: what words and lines are worth is what their tokens are worth together."""
    text = TEXTS[name]
    rows = {level: scored(text, kind, level, begin=True)[0] for level in list(Level)[:3]}
    _, scorer = scored(text, kind, Level.document, begin=True, columns=("tokens",))
    totals = scorer.totals
    for level, table in rows.items():
        assert sum(table["surprisal"]) == pytest.approx(totals.bits, rel=1e-9), level
        assert sum(table["unknown"]) == totals.num_unknown
    assert sum(rows[Level.word]["tokens"]) == totals.num_predicted == totals.num_tokens
    assert sum(number is not None for number in rows[Level.word]["word"]) == totals.num_words
    assert sum(rows[Level.sentence]["words"]) == totals.num_words == len(text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_rank_and_reduction_are_those_of_the_whole_distribution(kind: str) -> None:
    text, tokenizer = TEXTS["unknown"], tokenizer_of(kind)
    rows, _ = scored(text, kind, Level.token, begin=True)
    ids = torch.tensor([tokenizer.line_end, *tokenizer.encode(text).tolist()])
    log_prob, _ = model_of(tokenizer.vocab_size).log_prob(ids[:, None])
    p = log_prob[:, 0].double().softmax(-1)
    entropy = -(p * p.log2()).sum(-1).numpy()
    np.testing.assert_allclose(rows["entropy"], entropy[:-1], atol=1e-5)
    reduction = np.maximum(0, entropy[:-1] - entropy[1:])  # the last looks beyond the text
    np.testing.assert_allclose(rows["entropy_reduction"], reduction, atol=1e-5)
    own = p[:-1].gather(1, ids[1:, None])
    assert rows["rank"] == (1 + (p[:-1] > own).sum(1)).tolist()
    assert rows["token"] == [tokenizer.token(i) for i in ids[1:].tolist()]


def test_a_word_of_several_tokens_has_their_sum_and_the_entropy_before_them() -> None:
    text = b"the cat sees\nthem"
    tokens, _ = scored(text, "char", Level.token)
    words, _ = scored(text, "char", Level.word)
    assert words["text"] == [b"the", b"cat", b"sees", b"\n", b"them"]
    assert words["word"] == [1, 2, 3, None, 1]
    assert words["tokens"] == [3, 4, 5, 1, 4]  # with the space before them
    assert math.isnan(words["surprisal"][0])  # nothing predicts its first letter
    assert words["surprisal"][1] == pytest.approx(sum(tokens["surprisal"][3:7]))
    entropy = tokens["entropy"]
    assert words["entropy"][1] == pytest.approx(entropy[3])
    assert words["entropy_reduction"][1] == pytest.approx(max(0, entropy[3] - entropy[7]))
    assert [rank is None for rank in words["rank"]] == [True, True, True, False, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", list(Level)[:3])
def test_offsets_point_at_the_text(kind: str, level: Level) -> None:
    for text in TEXTS.values():
        rows, _ = scored(text, kind, level)
        decoded = text.decode()
        places = zip(rows["byte_start"], rows["byte_end"], rows["start"], rows["end"], strict=True)
        for unit, (first, last, begin, end) in zip(rows["text"], places, strict=True):
            assert text[first:last] == unit
            assert unit in decoded[begin:end].encode()  # of a part of a character, all of it
            assert kind in ("byte", "bpe") or decoded[begin:end].encode() == unit
        if level is Level.word:
            found = zip(rows["text"], rows["word"], strict=True)
            assert [unit for unit, number in found if number is not None] == text.split()
        if level is Level.sentence and kind != "bpe":  # one of its tokens may end several lines
            assert rows["text"] == text.removesuffix(b"\n").split(b"\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", list(Level)[:3])
def test_rows_do_not_depend_on_how_the_text_arrives(kind: str, level: Level) -> None:
    text, tokenizer = b"".join(TEXTS.values()), tokenizer_of(kind)
    whole, _ = scored(text, kind, level)
    columns = COLUMNS[level]
    cuts = [match.start() for match in tokenizer.cut.safe.finditer(text)][::7]
    ends = zip([0, *cuts], [*cuts, len(text)], strict=True)
    scorer = Scorer(model_of(tokenizer.vocab_size), tokenizer, level=level, columns=columns)
    parts = [Part(text[a:b], awaited=bool(k % 2)) for k, (a, b) in enumerate(ends)]
    found = together(scorer.stream(parts))
    for name in columns:
        if isinstance(whole[name][-1], float):
            np.testing.assert_allclose(found[name], whole[name], atol=2e-5)
        else:
            assert found[name] == whole[name], name


@pytest.mark.parametrize("kind", ["word", "char", "byte"])
def test_independent_lines_are_those_of_evaluation_by_line(tmp_path: Path, kind: str) -> None:
    # The first line end is context, as the one before every line is.
    text = b"\nthe cat\n\n" + TEXTS["plain"] * 20 + b"the zebra sees the mat"
    wanted = evaluated(tmp_path, text, kind, Unit.line)
    rows, scorer = scored(text, kind, Level.token, state=Carry.reset)
    found = bits(rows["surprisal"]) * LN2
    assert not np.isnan(found).any()  # each line is read after a line end
    np.testing.assert_allclose(found[1:], wanted, atol=1e-5)
    sentences, _ = scored(text, kind, Level.sentence, state=Carry.reset)
    assert sentences["sentence"] == list(range(1, 45))
    assert sentences["surprisal"][3:43:2] == pytest.approx([sentences["surprisal"][3]] * 20)
    assert scorer.totals.num_predicted == len(found)


def test_lines_stand_alone_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "_POOL", 3)
    lines = [b"the cat sees the mat .\n", b"the\n", b"\n", b"the dog, one bird's log\n" * 1] * 3
    whole, _ = scored(b"".join(lines), "word", Level.token, state=Carry.reset)
    alone = [scored(line, "word", Level.token, state=Carry.reset)[0] for line in lines]
    for name in ("surprisal", "entropy", "entropy_reduction"):
        joined = [value for rows in alone for value in rows[name]]
        np.testing.assert_allclose(whole[name], joined, atol=1e-5)


def test_a_line_longer_than_a_window_keeps_its_state() -> None:
    line = b"the cat sees the mat . " * 40
    long, _ = scored(line, "word", Level.token, state=Carry.reset, window=7)
    carried, _ = scored(line, "word", Level.token, begin=True)
    np.testing.assert_allclose(long["surprisal"], carried["surprisal"], atol=1e-5)


@pytest.mark.parametrize("head", ["softmax", "adaptive", "mixture"])
@pytest.mark.parametrize("columns", [("surprisal",), ("surprisal", "entropy", "rank")])
def test_every_head_and_any_columns_give_the_same_numbers(
    tmp_path: Path, head: str, columns: tuple[str, ...]
) -> None:
    tokenizer = tokenizer_of("word")
    model = model_of(tokenizer.vocab_size, head=HeadKind[head])
    wanted = evaluated(tmp_path, TEXTS["unknown"], "word", model=model)
    rows, _ = scored(TEXTS["unknown"], "word", Level.token, model=model, columns=columns)
    np.testing.assert_allclose(np.array(rows["surprisal"][1:]) * LN2, wanted, atol=1e-5)


def test_a_model_that_knows_nothing_has_v_equal_words() -> None:
    tokenizer = tokenizer_of("word")
    rows, scorer = scored(
        TEXTS["plain"], "word", Level.word, model=ngram_of(tokenizer.vocab_size), begin=True
    )
    wanted = math.log2(tokenizer.vocab_size)
    np.testing.assert_allclose(rows["surprisal"], wanted, rtol=1e-6)
    np.testing.assert_allclose(rows["entropy"], wanted, rtol=1e-6)
    np.testing.assert_allclose(rows["entropy_reduction"], 0, atol=1e-6)
    assert set(rows["rank"]) == {1}
    assert scorer.totals.perplexity == pytest.approx(tokenizer.vocab_size, rel=1e-6)


def test_unknown_words_are_flagged_and_those_that_are_written_so_are_not() -> None:
    rows, scorer = scored(b"the zebra <unk> dog\n", "word", Level.word, begin=True)
    assert rows["unknown"] == [0, 1, 0, 1, 0]
    assert rows["text"] == [b"the", b"zebra", b"<unk>", b"dog", b"\n"]
    assert scorer.totals.num_unknown == 2
    assert "2 tokens (40.0%) are unknown" in scorer.totals.describe_unknown("<unk>")


@pytest.mark.parametrize("state", Carry)
def test_a_diverged_model_is_an_error_and_no_missing_value(state: Carry) -> None:
    tokenizer = tokenizer_of("word")
    model = CELLS["rnn"](embedding_size=4, hidden_size=4).build(tokenizer.vocab_size, seed=1)
    model.requires_grad_(False).embedding.weight.fill_(math.nan)
    for columns in (("surprisal",), ("surprisal", "rank")):
        with pytest.raises(NumericError, match="NaN"):
            scored(
                TEXTS["plain"], "word", Level.word, model=model, state=state, columns=columns
            )  # fmt: skip
