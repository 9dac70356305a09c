"""The n-gram model against a slow one of dictionaries, written from the formulas."""

from collections import Counter as Multiset
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lm.checkpoint import Checkpoint, read, write
from lm.data.corpus import Unit
from lm.data.prepare import prepare
from lm.data.sources.published import PtbConfig
from lm.data.store import Block, TokenStore, write_store
from lm.data.streams import Streams
from lm.data.tokenizers.word import WordConfig
from lm.errors import CheckpointError, ConfigError
from lm.evaluation import evaluate
from lm.models import MODELS, NgramConfig, NgramModel
from lm.models.base import slice_streams
from lm.models.kneser_ney import FALLBACK, Counter, Tally, estimate_discounts
from lm.models.stepper import stepper_after

V = 23
UNSEEN = V - 1
PTB = Path(__file__).resolve().parents[3] / "shared/data/ptb"


class Dictionaries:
    """Modified Kneser–Ney (Chen and Goodman 1999), one dictionary entry at a time.

    Args:
        units: each a list of words of which the first is context only.
    """

    def __init__(self, units: list[list[int]], order: int) -> None:
        occurrences: Multiset[tuple[int, ...]] = Multiset()
        beginning: Multiset[tuple[int, ...]] = Multiset()
        preceding: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for unit in units:
            for last in range(1, len(unit)):
                for first in range(max(0, last - order + 1), last + 1):
                    ngram = tuple(unit[first : last + 1])
                    occurrences[ngram] += 1
                    if first:
                        preceding[ngram].add(unit[first - 1])
                    else:
                        beginning[ngram] += 1
        self.order = order
        self.counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for ngram, often in occurrences.items():
            modified = len(preceding[ngram]) + beginning[ngram]
            self.counts[ngram[:-1]][ngram[-1]] = often if len(ngram) == order else modified
        self.discounts = [self._discounts(length) for length in range(order)]

    def _discounts(self, length: int) -> tuple[float, ...]:
        followed = [words for context, words in self.counts.items() if len(context) == length]
        n = Multiset(count for words in followed for count in words.values())
        if 0 in (n[1], n[2], n[3], n[4]):
            return 0.5, 1.0, 1.5
        y = n[1] / (n[1] + 2 * n[2])
        d = 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]
        return d if all(0 < d[k] <= k + 1 for k in range(3)) else (0.5, 1.0, 1.5)

    def probability(self, word: int, context: tuple[int, ...]) -> float:
        lower = self.probability(word, context[1:]) if context else 1 / V
        words = self.counts.get(context)
        if words is None:
            return lower
        discount = dict(enumerate(self.discounts[len(context)], start=1))
        total = sum(words.values())
        count = words.get(word, 0)
        own = count - discount[min(count, 3)] if count else 0
        saved = sum(discount[min(c, 3)] for c in words.values())
        return (own + saved * lower) / total


def text_of(seed: int, length: int = 600) -> Tensor:
    """Words as frequent as Zipf has it, none `UNSEEN`, with sentences that come again and again."""
    draws = np.random.default_rng(seed)
    weights = 1 / np.arange(1, V)
    words = draws.choice(V - 1, length, p=weights / weights.sum())
    for begin in draws.integers(0, length - 9, length // 12):
        words[begin : begin + 9] = words[3:12]
    return torch.from_numpy(words)[:, None]


def resets_of(seed: int, length: int) -> Tensor:
    """Some ends of units, two of them side by side."""
    ends = torch.from_numpy(np.random.default_rng(seed + 100).random((length, 1)) < 0.1)
    ends[5:7] = True
    return ends


def units_of(words: Tensor, resets: Tensor | None) -> list[list[int]]:
    """The word that ends a unit begins the next one."""
    flat = words.flatten().tolist()
    ends = [] if resets is None else resets[: len(flat) - 1].flatten().nonzero().flatten().tolist()
    cuts = [0, *(end for end in ends if end), len(flat) - 1]
    return [flat[a : b + 1] for a, b in pairwise(cuts)]


def counted(
    words: Tensor, order: int, resets: Tensor | None = None, window: int = 10_000
) -> NgramModel:
    """The model of a text, counted in windows."""
    counter = Counter(order, V)
    for _ in range(order):
        for begin in range(0, len(words) - 1, window):
            stop = min(begin + window, len(words) - 1)
            part = None if resets is None else resets[begin:stop]
            counter.read(words[begin:stop], words[begin + 1 : stop + 1], part)
        counter.end_pass()
    model = NgramConfig(order=order).build(V, seed=1)
    model.load_tensors(model_tensors(counter))
    return model


def model_tensors(counter: Counter) -> dict[str, Tensor]:
    model = NgramConfig(order=counter.order).build(V, seed=1)
    model.levels = [level for level, _ in counter.levels()]
    return model.tensors()


def strange_text(seed: int) -> Tensor:
    """Partly like the training text, partly of words and contexts that it has not."""
    return torch.cat([text_of(seed)[:60], torch.full((3, 1), UNSEEN), text_of(seed + 50)[:60]])


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_probabilities_are_those_of_the_dictionaries(seed: int, order: int, units: bool) -> None:
    words, new = text_of(seed), strange_text(seed)
    resets = resets_of(seed, len(words)) if units else None
    slow = Dictionaries(units_of(words, resets), order)
    model = counted(words, order, resets)
    ends = resets_of(seed + 7, len(new) - 1) if units else None
    contexts = [
        (word, tuple(unit[max(0, last - order + 1) : last]))
        for unit in units_of(new, None if ends is None else torch.cat([ends, ends[:1]]))
        for last, word in enumerate(unit)
        if last
    ]
    wanted = torch.tensor([slow.probability(*pair) for pair in contexts], dtype=torch.float64)
    nll = model(new[:-1], new[1:], resets=ends).nll
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll.flatten().double(), -wanted.log(), rtol=1e-6, atol=1e-6)
    log_prob, _ = model.log_prob(new[:-1], resets=ends)
    total = log_prob.double().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    chosen = log_prob.gather(-1, new[1:, :, None]).squeeze(-1)
    torch.testing.assert_close(chosen, -nll, rtol=1e-6, atol=1e-6)


def test_both_ways_to_discounts_are_taken_above() -> None:
    discounts = {
        d for order in (3, 5) for d in Dictionaries(units_of(text_of(1), None), order).discounts
    }
    assert FALLBACK in discounts
    assert len(discounts) > 2


def test_a_bigram_model_by_hand() -> None:
    a, b, c = 0, 1, 2
    model = counted(torch.tensor([a, b, a, c])[:, None], 2)
    # Too few for an estimate: D = 0.5, 1, 1.5. b, a and c follow one word each; so
    # p(w) = 0.5 / 3 + (1.5 / 3) / V, and half of a's followers is discounted.
    unigram = 1 / 6 + 0.5 / V
    after_a = {b: 0.25 + 0.5 * unigram, a: 0.5 * unigram, UNSEEN: 0.5 * 0.5 / V}
    log_prob, state = model.log_prob(torch.tensor([[a]]))
    for word, p in after_a.items():
        assert log_prob[0, 0, word].exp().item() == pytest.approx(p, rel=1e-6)
    unseen, _ = model.log_prob(torch.tensor([[UNSEEN]]), state)
    assert unseen[0, 0, a].exp().item() == pytest.approx(unigram, rel=1e-6)


def test_discounts_by_hand() -> None:
    counts = torch.tensor([1] * 10 + [2] * 5 + [3] * 3 + [4] * 2 + [9] * 7 + [0] * 4)
    # Y = 10 / 20
    assert estimate_discounts(counts) == pytest.approx((0.5, 2 - 0.9, 3 - 4 / 3))
    assert estimate_discounts(torch.tensor([1, 1, 2, 3])) == FALLBACK  # no 4
    assert estimate_discounts(torch.tensor([1, 2, 3, 4, 4, 4, 4, 4])) == FALLBACK  # D₃ < 0
    assert estimate_discounts(torch.zeros(5, dtype=torch.int64)) == FALLBACK


def test_a_model_that_counted_nothing_is_uniform() -> None:
    model = NgramConfig(order=4).build(V, seed=1)
    words = text_of(1)
    log_prob, _ = model.log_prob(words[:9])
    assert log_prob.exp().flatten().tolist() == pytest.approx([1 / V] * 9 * V)
    assert model.num_ngrams == V
    assert model(words[:-1], words[1:]).nll.exp().mean().item() == pytest.approx(V)


def test_a_text_in_which_all_words_are_alike_gives_a_uniform_unigram() -> None:
    words = torch.arange(V).repeat(6)
    model = counted(torch.cat([words, words[:1]])[:, None], 1)
    log_prob, _ = model.log_prob(words[:3, None])
    assert log_prob.exp().flatten().tolist() == pytest.approx([1 / V] * 3 * V)


def test_repeating_a_text_is_learned_by_heart() -> None:
    words = torch.arange(12).repeat(50)[:, None]
    model = counted(words, 3)
    assert model(words[:-1], words[1:]).nll[20:].max() < 0.05


@pytest.mark.parametrize("order", [1, 3, 6])
def test_the_window_of_reading_changes_nothing(order: int) -> None:
    model, words, resets = counted(text_of(1), order), text_of(2)[:50], resets_of(2, 50)
    whole = model(words[:-1], words[1:], resets=resets[:-1])
    for window in (1, 2, 7):
        parts, state = [], None
        for begin in range(0, 49, window):
            part = slice(begin, min(begin + window, 49))
            targets = words[1:][part]
            output = model(words[:-1][part], targets, state, resets=resets[:-1][part])
            parts.append(output.nll)
            state = output.state
        assert torch.equal(torch.cat(parts), whole.nll)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_window_of_counting_changes_nothing(order: int) -> None:
    words, resets = text_of(3), resets_of(3, 600)
    whole, parts = (counted(words, order, resets, window).tensors() for window in (10_000, 7))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_tally_sums_by_key_however_the_text_is_cut() -> None:
    draws = np.random.default_rng(5)
    keys, weights = torch.from_numpy(draws.integers(0, 80, (2, 500)))
    tally = Tally()
    for part in range(0, 500, 9):
        tally.add(keys[part : part + 9], weights[part : part + 9])
    total, sums = tally.total()
    assert total.tolist() == sorted(set(keys.tolist()))
    wanted = torch.bincount(keys, weights.double()).long()
    assert torch.equal(sums, wanted[total])


def store_of(folder: Path, words: Tensor, ends: list[int] | None = None) -> TokenStore:
    units = None if ends is None else np.array(ends, np.int64)
    return write_store(folder, [Block(words.flatten().numpy(), units)], vocab_size=V)


@pytest.mark.parametrize("unit", [Unit.stream, Unit.line])
def test_evaluation_does_not_depend_on_the_window(tmp_path: Path, unit: Unit) -> None:
    words = text_of(4)
    ends = [9, 10, 40, 41, 200, 599]
    store = store_of(tmp_path / "store", words, None if unit is Unit.stream else ends)
    counter = Counter(4, V)
    for _ in range(4):
        for window in Streams(store, 1, 50, unit).evaluation_windows():
            counter.read(window.tokens, window.targets, window.resets)
        counter.end_pass()
    model = NgramConfig(order=4).build(V, seed=1)
    model.load_tensors(model_tensors(counter))
    cuts = [0, *(ends[:-1] if unit is Unit.line else []), 599]
    units = [words.flatten()[a : b + 1].tolist() for a, b in pairwise(cuts)]
    slow = Dictionaries(units, 4)
    wanted = sum(
        -np.log(slow.probability(unit[k], tuple(unit[max(0, k - 3) : k])))
        for unit in units
        for k in range(1, len(unit))
    )
    for window in (3, 77, 5000):
        score = evaluate(model, store, window=window, unit=unit)
        assert score.nats == pytest.approx(wanted, rel=1e-6)


def test_streams_are_independent_and_can_be_sliced() -> None:
    model = counted(text_of(1), 4)
    columns = torch.cat([text_of(6)[:40], text_of(7)[:40], text_of(8)[:40]], 1)
    together = model(columns[:-1], columns[1:])
    for stream in range(3):
        alone = model(columns[:-1, stream, None], columns[1:, stream, None])
        assert torch.equal(alone.nll[:, 0], together.nll[:, stream])
    first = model(columns[:20], columns[1:21])
    rest = model(columns[20:-1, 1:], columns[21:, 1:], slice_streams(first.state, slice(1, 3)))
    assert torch.equal(rest.nll, together.nll[20:, 1:])
    assert torch.equal(first.state[0]["history"], columns[17:20].T)


def test_a_state_after_a_reset_has_forgotten_what_was_before() -> None:
    model = counted(text_of(1), 5)
    words, resets = text_of(2)[:10], torch.zeros(10, 1, dtype=torch.bool)
    resets[8] = True
    state = model(words, words, resets=resets).state
    assert state[0]["history"].tolist() == [[-1, -1, *words[8:].flatten().tolist()]]


@pytest.mark.parametrize("prompt", [1, 2, 12])
def test_generation_reads_as_the_window_does(prompt: int) -> None:
    model, words = counted(text_of(1), 4), text_of(1)[:20, 0]
    wanted, _ = model.log_prob(words[:, None])
    stepper = stepper_after(model, words[:prompt], 2)
    assert torch.equal(stepper.logits(), wanted[prompt - 1].expand(2, -1))
    for step in range(prompt, len(words)):
        stepper.read(words[step].repeat(2))
        assert torch.equal(stepper.logits(), wanted[step].expand(2, -1))


def test_the_number_of_ngrams_is_that_of_all_lengths() -> None:
    words = text_of(1).flatten().tolist()
    different = {tuple(words[end - k : end]) for k in (2, 3, 4) for end in range(k, len(words) + 1)}
    assert counted(text_of(1), 4).num_ngrams == V + len(different)


def test_a_text_shorter_than_the_order() -> None:
    words = torch.tensor([3, 1, 4])[:, None]
    model = counted(words, 6)
    slow = Dictionaries(units_of(words, None), 6)
    wanted = [slow.probability(1, (3,)), slow.probability(4, (3, 1))]
    nll = model(words[:-1], words[1:]).nll
    assert nll.neg().exp().flatten().tolist() == pytest.approx(wanted, rel=1e-6)
    assert model.num_ngrams == V + 2 + 1


def test_a_checkpoint_gives_the_same_model_to_the_last_bit(tmp_path: Path) -> None:
    model, new = counted(text_of(1), 6), strange_text(3)
    write(tmp_path / "step-000000000", Checkpoint(model.tensors(), {}, {}, "", {}))
    loaded = NgramConfig(order=6).build(V, seed=1)
    loaded.load_tensors(read(tmp_path / "step-000000000").model)
    assert torch.equal(loaded(new[:-1], new[1:]).nll, model(new[:-1], new[1:]).nll)
    words = counted(text_of(1)[:4], 9).tensors()
    assert len(words["keys.9"]) == 0
    write(tmp_path / "step-000000001", Checkpoint(words, {}, {}, "", {}))
    NgramConfig(order=9).build(V, seed=1).load_tensors(read(tmp_path / "step-000000001").model)


def spoiled(tensors: dict[str, Tensor], name: str, how: str) -> dict[str, Tensor]:
    """The tensors with one of them wrong."""
    tensor = tensors[name].clone()
    match how:
        case "missing":
            return {key: value for key, value in tensors.items() if key != name}
        case "other type":
            tensor = tensor.to(torch.int32)
        case "shorter":
            tensor = tensor[:-1]
        case "matrix":
            tensor = tensor[None]
        case "swapped":
            tensor[[3, 4]] = tensor[[4, 3]]
        case "twice":
            tensor[3] = tensor[4]
        case "huge":
            tensor[-1] = 2**62
        case "overflowing":  # each difference of neighbours is positive in 64 bits
            tensor[1:4] = torch.tensor([2**63 - 1, -(2**63), -(2**62)])
        case "below":
            tensor[0] = -1
        case "nan":
            tensor[2] = torch.nan
        case "more":
            tensor[2] += 0.25
        case "negative":
            tensor[2] -= 1.5
        case "last":
            tensor[-1] = 0.5
    return {**tensors, name: tensor}


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("share.3", "missing", "lacks share.3"),
        ("keys.2", "other type", "keys.2 is torch.int32"),
        ("keys.1", "shorter", "share.1 is|keys.1 is"),
        ("backoff.3", "shorter", "backoff.3 is"),
        ("share.2", "matrix", "share.2 is"),
        ("keys.2", "swapped", "n-grams of 2 words: keys are not ascending"),
        ("keys.2", "twice", "keys are not ascending"),
        ("keys.3", "huge", "contexts that are not there"),
        ("keys.2", "overflowing", "keys are not ascending"),
        ("keys.2", "below", "contexts that are not there"),
        ("share.2", "nan", "a share is negative"),
        ("backoff.2", "nan", "a share is negative"),
        ("share.1", "more", "do not sum to 1"),
        ("backoff.2", "more", "do not sum to 1"),
        ("share.3", "negative", "a share is negative"),
        ("backoff.3", "negative", "a backoff is not positive"),
        ("share.3", "last", "never seen"),
        ("backoff.1", "last", "never seen"),
    ],
)
def test_a_strangers_nonsense_is_refused(name: str, how: str, message: str) -> None:
    model = counted(text_of(1), 3)
    before = model.levels
    with pytest.raises(CheckpointError, match=message):
        model.load_tensors(spoiled(model.tensors(), name, how))
    assert model.levels is before


def test_another_order_or_vocabulary_is_refused() -> None:
    tensors = counted(text_of(1), 3).tensors()
    with pytest.raises(CheckpointError, match=r"has backoff.3, model.order is 2"):
        NgramConfig(order=2).build(V, seed=1).load_tensors(tensors)
    with pytest.raises(CheckpointError, match=f"{V} words stand beside a vocabulary of {V + 1}"):
        NgramConfig(order=3).build(V + 1, seed=1).load_tensors(tensors)


def test_it_is_a_model_by_name_and_checks_its_order() -> None:
    assert MODELS["ngram"] is NgramConfig
    with pytest.raises(ConfigError, match=r"model.order must be >= 1, got 0"):
        NgramConfig(order=0)


# Mikolov et al. (2011) have 148.3 and 141.2 on the test split for Kneser–Ney of order 3 and 5.
@pytest.mark.slow
@pytest.mark.skipif(not PTB.is_dir(), reason="needs ../shared/data/ptb")
@pytest.mark.parametrize(
    ("order", "unit", "valid", "test"),
    [
        (3, Unit.stream, 157.94, 148.38),
        (4, Unit.stream, 149.81, 142.73),
        (5, Unit.stream, 147.74, 141.06),
        (5, Unit.line, 148.03, 141.18),
    ],
)
def test_perplexity_on_ptb(
    tmp_path: Path, order: int, unit: Unit, valid: float, test: float
) -> None:
    corpus = PtbConfig(root=str(PTB)).build(tmp_path)
    prepared = prepare(corpus, WordConfig(), unit, tmp_path)
    counter = Counter(order, prepared.tokenizer.vocab_size)
    for _ in range(order):
        for window in Streams(prepared.stores["train"], 1, 1 << 19, unit).evaluation_windows():
            counter.read(window.tokens, window.targets, window.resets)
        counter.end_pass()
    model = NgramConfig(order=order).build(counter.vocab_size, seed=1)
    model.levels = [level for level, _ in counter.levels()]
    model.load_tensors(model.tensors())
    for split, wanted in (("valid", valid), ("test", test)):
        score = evaluate(model, prepared.stores[split], unit=unit)
        assert score.perplexity == pytest.approx(wanted, abs=0.006)
