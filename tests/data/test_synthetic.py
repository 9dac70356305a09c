"""Generators against brute force, and their nats against formulas worked out by hand."""

import hashlib
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from lm.data.corpus import SPLITS, Corpus, Unit
from lm.data.prepare import prepare
from lm.data.sources import SOURCES
from lm.data.sources.cut import first_bytes
from lm.data.store import TokenStore
from lm.data.synthetic.copying import CopyConfig
from lm.data.synthetic.dyck import Dyck, DyckConfig
from lm.data.synthetic.hmm import HiddenMarkov, HmmConfig
from lm.data.synthetic.markov import Markov, MarkovConfig
from lm.data.synthetic.process import cumulative, entropy, spellings, stationary
from lm.data.synthetic.recalling import RecallConfig
from lm.data.tokenizers import TOKENIZERS
from lm.errors import ConfigError, DataError
from lm.runtime.files import sha256

DRAWN = ("markov", "hmm", "dyck", "copy", "recall")
SMALL = {"tokens": 3000, "valid_tokens": 400, "test_tokens": 300}


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def rows_of(*shape: int) -> np.ndarray:
    """Positive distributions, reproducible and without a library's Dirichlet."""
    raw = (np.arange(math.prod(shape)) * 7919 % 97 + 1.0).reshape(shape)
    return raw / raw.sum(-1, keepdims=True)


def corpus_of(cache: Path, name: str, **fields: object) -> Corpus:
    return SOURCES[name](**{**SMALL, **fields}).build(cache)  # type: ignore[arg-type]


def store_of(corpus: Corpus, cache: Path, tokenizer: str, split: str = "test") -> TokenStore:
    built = TOKENIZERS[tokenizer]()
    return prepare(corpus, built, Unit.stream, cache, splits=["train", split]).stores[split]


# The arithmetic of processes


def test_spellings_are_distinct_letters_of_one_width() -> None:
    assert spellings(3) == [b"a", b"b", b"c"]
    words = spellings(27)
    assert (words[0], words[25], words[26]) == (b"aa", b"az", b"ba")
    assert len(set(spellings(700))) == 700
    assert {len(word) for word in spellings(700)} == {3}


def test_cumulative_sums_end_in_one_and_never_give_what_is_impossible() -> None:
    sums = cumulative(np.array([0.0, 0.1, 0.0, 0.2, 0.7 - 1e-12, 0.0]))
    assert sums[-1] == sums[-2] == 1.0
    largest = np.nextafter(1.0, 0.0)
    assert np.searchsorted(sums, [0.0, largest], "right").tolist() == [1, 4]


@pytest.mark.parametrize(("num_symbols", "order"), [(2, 1), (3, 2), (2, 4)])
def test_the_stationary_distribution_is_the_leading_eigenvector(
    num_symbols: int, order: int
) -> None:
    rows = rows_of(num_symbols**order, num_symbols)
    moves = np.zeros((len(rows), len(rows)))
    for context, symbol in product(range(len(rows)), range(num_symbols)):
        moves[context, (context * num_symbols + symbol) % len(rows)] = rows[context, symbol]
    values, vectors = np.linalg.eig(moves.T)
    leading = vectors[:, values.real.argmax()].real
    assert stationary(rows, order) == pytest.approx(leading / leading.sum(), abs=1e-12)


def test_a_chain_with_a_period_has_a_stationary_distribution_too() -> None:
    assert stationary(np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx([0.5, 0.5])


def test_entropy_in_nats() -> None:
    assert entropy(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])) == pytest.approx([math.log(2), 0])


# Markov chains


def test_a_chain_moves_by_its_rows() -> None:
    chain = Markov(rows_of(9, 3), order=2)
    drawn = chain.draw(20_000, draws())
    contexts = drawn.symbols[:-2] * 3 + drawn.symbols[1:-1]
    counts = np.zeros((9, 3))
    np.add.at(counts, (contexts, drawn.symbols[2:]), 1)
    found = counts / counts.sum(1, keepdims=True)
    # Four standard deviations of the rarest context.
    assert np.abs(found - chain.rows).max() < 4 * 0.5 / math.sqrt(counts.sum(1).min())


def test_a_chain_knows_its_nats_from_the_first_symbol_on() -> None:
    chain = Markov(rows_of(8, 2), order=3)
    drawn = chain.draw(9, draws(3))
    s = drawn.symbols.tolist()
    wanted = chain.start[s[0] * 4 + s[1] * 2 + s[2]]
    for t in range(3, 9):
        wanted *= chain.rows[s[t - 3] * 4 + s[t - 2] * 2 + s[t - 1], s[t]]
    assert drawn.nats.sum() == pytest.approx(-math.log(wanted))
    assert drawn.nats[0] == pytest.approx(-math.log(chain.first[s[0]]))
    assert drawn.nats[3] == pytest.approx(-math.log(chain.rows[s[0] * 4 + s[1] * 2 + s[2], s[3]]))
    assert chain.draw(2, draws(3)).symbols.tolist() == s[:2]  # shorter than the order


def test_the_entropy_rate_of_two_states_is_that_of_the_textbook() -> None:
    """Cover & Thomas 2006, example 4.1.1: H(β, 1 − β) and H(α, 1 − α), by the other's share."""
    a, b = 0.2, 0.6
    chain = Markov(np.array([[1 - a, a], [b, 1 - b]]), order=1)
    assert chain.start == pytest.approx([b / (a + b), a / (a + b)])
    h = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (a, b)]
    wanted = (b * h[0] + a * h[1]) / (a + b)
    assert chain.entropy_rate == pytest.approx(wanted)
    drawn = chain.draw(30_000, draws())
    assert drawn.nats.mean() == pytest.approx(wanted, abs=4 * drawn.nats.std() / 173)


# Hidden Markov models


def test_the_forward_algorithm_sums_over_all_paths() -> None:
    model = HiddenMarkov(rows_of(3, 3), rows_of(3, 4))
    symbols = np.array([3, 0, 2, 2, 1])

    def probability(length: int) -> float:
        total = 0.0
        for path in product(range(3), repeat=length):
            p = model.start[path[0]] * model.emissions[path[0], symbols[0]]
            for t in range(1, length):
                p *= model.transitions[path[t - 1], path[t]] * model.emissions[path[t], symbols[t]]
            total += p
        return total

    sums = [1.0, *(probability(length) for length in range(1, 6))]
    assert model.nats(symbols) == pytest.approx(-np.diff(np.log(sums)))
    assert model.first.sum() == pytest.approx(1)


def test_an_hmm_emits_by_its_hidden_states() -> None:
    model = HiddenMarkov(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1.0, 0, 0], [0, 0.5, 0.5]]))
    symbols = model.draw(10_000, draws()).symbols
    state = symbols > 0  # the emissions tell
    moves = np.bincount(2 * state[:-1] + state[1:], minlength=4).reshape(2, 2)
    assert moves / moves.sum(1, keepdims=True) == pytest.approx(model.transitions, abs=0.03)
    assert np.bincount(symbols)[1:] / state.sum() == pytest.approx([0.5, 0.5], abs=0.03)


def test_long_texts_do_not_underflow() -> None:
    model = HiddenMarkov(rows_of(2, 2), rows_of(2, 26))
    assert np.isfinite(model.nats(np.arange(3000) % 26)).all()


# Brackets


def test_brackets_are_balanced_within_the_depth_and_cost_what_they_should() -> None:
    process = Dyck(2, 3, 0.6)
    drawn = process.draw(2_000, draws())
    stack: list[int] = []
    line_start, deepest = True, 0
    for symbol, nats in zip(drawn.symbols.tolist(), drawn.nats.tolist(), strict=True):
        distribution = process.distribution(stack, line_start=line_start)
        assert distribution.sum() == pytest.approx(1)
        assert nats == pytest.approx(-math.log(distribution[symbol]))
        line_start = symbol == 4
        if symbol < 2:
            stack.append(symbol)
            deepest = max(deepest, len(stack))
        elif line_start:
            assert not stack
        else:
            assert stack.pop() == symbol - 2
    assert (line_start, deepest) == (True, 3)
    assert drawn.nats.mean() == pytest.approx(process.entropy_rate, abs=0.06)


@pytest.mark.parametrize(
    ("stack", "line_start", "wanted"),
    [
        ([], True, [0.5, 0.5, 0, 0, 0]),
        ([], False, [0.3, 0.3, 0, 0, 0.4]),
        ([0, 1], False, [0.3, 0.3, 0, 0.4, 0]),
        ([0, 1, 0], False, [0, 0, 1, 0, 0]),
    ],
)
def test_the_next_bracket(stack: list[int], line_start: bool, wanted: list[float]) -> None:
    assert Dyck(2, 3, 0.6).distribution(stack, line_start=line_start) == pytest.approx(wanted)


def test_the_entropy_rate_of_brackets_by_hand() -> None:
    # Depth 1, one type: `a A`, again with probability q: start → 1 → 0 → 1 or the line's end.
    q = 0.25
    h = -q * math.log(q) - (1 - q) * math.log(1 - q)
    # Of a line with n pairs, E[n] = 1/(1 − q): E[n] choices of h in 2 E[n] + 1 symbols.
    pairs = 1 / (1 - q)
    assert Dyck(1, 1, q).entropy_rate == pytest.approx(pairs * h / (2 * pairs + 1))


# Copy and recall


def test_what_is_copied_costs_nothing_the_second_time() -> None:
    drawn = CopyConfig(num_symbols=5, num_copied=3, lag=4).process(draws()).draw(25, draws())
    lines = drawn.symbols.reshape(-1, 12)  # 3 + 4 waits + marker + 3 + line end
    assert len(lines) == 3
    assert (lines[:, :3] == lines[:, 8:11]).all()
    assert (lines[:, :3] < 5).all()
    assert lines[:, 3:].tolist()[0][:5] == [5, 5, 5, 5, 6]
    assert (lines[:, 11] == 7).all()
    assert drawn.nats.reshape(-1, 12) == pytest.approx(np.tile([math.log(5)] * 3 + [0] * 9, (3, 1)))
    assert drawn.recalled is not None
    assert drawn.recalled.reshape(-1, 12).nonzero()[1].tolist() == [8, 9, 10] * 3


def test_copying_without_a_wait() -> None:
    process = CopyConfig(num_symbols=2, num_copied=1, lag=0).process(draws())
    assert process.draw(4, draws()).symbols[1:].tolist()[0] == 3  # the marker follows at once
    assert process.entropy_rate == pytest.approx(math.log(2) / 4)


def test_numbered_waits_need_no_counting() -> None:
    process = CopyConfig(num_symbols=2, num_copied=1, lag=30, numbered=True).process(draws())
    line = [process.words[symbol] for symbol in process.draw(34, draws()).symbols]
    waits = line[1:31]
    assert waits[:2] + waits[-1:] == [b"WaitAA", b"WaitAB", b"WaitBD"]
    assert len(set(waits)) == 30
    assert line[31] == b"Copy"
    assert process.entropy_rate == pytest.approx(math.log(2) / 34)


def test_the_answer_is_the_value_of_the_key_and_costs_nothing() -> None:
    config = RecallConfig(num_keys=4, num_values=3, num_pairs=3, lag=2, num_distractors=5)
    process = config.process(draws())
    drawn = process.draw(1200, draws())
    lines = drawn.symbols.reshape(-1, 12)
    for line in lines:
        pairs = dict(zip(line[0:6:2].tolist(), line[1:6:2].tolist(), strict=True))
        assert len(pairs) == 3
        assert pairs[int(line[9])] == line[10]
        words = [process.words[symbol] for symbol in line]
        assert words[8:9] + words[11:] == [b"Ask", b"\n"]
        assert all(word.startswith(b"Wait") for word in words[6:8])
    wanted = math.log(4 * 3 * 2) + 3 * math.log(3) + 2 * math.log(5) + math.log(3)
    assert drawn.nats.reshape(-1, 12).sum(1) == pytest.approx([wanted] * len(lines))
    assert drawn.nats.reshape(-1, 12)[:, 9:].tolist()[0] == [math.log(3), 0, 0]
    asked = (lines[:, 0:6:2] == lines[:, 9:10]).nonzero()[1]
    assert np.bincount(asked, minlength=3) / len(lines) == pytest.approx([1 / 3] * 3, abs=0.2)


# On disk, and as tokens


PINNED = {
    "markov": "cbf5d5f3bb5fe956",
    "hmm": "e35c75a62bc71080",
    "dyck": "cf1222176a4a0742",
    "copy": "1fac19d0adee3652",
    "recall": "0788f376ff7b315c",
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_text_is_decided_by_the_configuration_alone(tmp_path: Path, name: str) -> None:
    corpus = corpus_of(tmp_path, name)
    text = b"".join(corpus.split(split)[0].path.read_bytes() for split in SPLITS)
    assert hashlib.sha256(text).hexdigest()[:16] == PINNED[name]
    other = corpus_of(tmp_path, name, seed=2)
    assert other.train[0].path.read_bytes() != corpus.train[0].path.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")}
    corpus_of(tmp_path, name)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")} == before
    assert corpus.valid[0].path.read_bytes()[:300] != corpus.test[0].path.read_bytes()[:300]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("tokenizer", ["word", "bpe"])
def test_a_symbol_is_a_token(tmp_path: Path, name: str, tokenizer: str) -> None:
    config = SOURCES[name](**SMALL)  # type: ignore[arg-type]
    corpus = config.build(tmp_path)
    process = config.process(config.draws(0))  # type: ignore[attr-defined]
    drawn = process.draw(300, config.draws(3))  # type: ignore[attr-defined]
    store = store_of(corpus, tmp_path, tokenizer)
    assert len(store) == len(drawn.symbols)
    assert store.floor == pytest.approx(drawn.nats[1:], abs=1e-15)
    spelled = TOKENIZERS[tokenizer]().build(corpus.train)
    for token, symbol in zip(store[1:50], drawn.symbols[1:50].tolist(), strict=True):
        token_text = spelled.decode([int(token)])
        assert token_text.strip(b" ") == process.words[symbol]
    if drawn.recalled is None:
        assert store.recalled is None
    else:
        assert store.recalled is not None
        assert (store.recalled > 0).tolist() == drawn.recalled[1:].tolist()


@pytest.mark.parametrize("tokenizer", ["word", "bpe", "char", "byte"])
def test_the_floor_leaves_out_the_bytes_of_the_first_token(tmp_path: Path, tokenizer: str) -> None:
    config = MarkovConfig(num_symbols=40, order=1, **SMALL)
    process = config.process(config.draws(0))
    drawn = process.draw(300, config.draws(3))
    store = store_of(config.build(tmp_path), tmp_path, tokenizer)
    total = drawn.nats.sum()
    word = process.words[int(drawn.symbols[0])]
    first = -math.log(process.first[int(drawn.symbols[0])])
    assert store.header.first_token_bytes == (2 if tokenizer == "word" else 1)
    if tokenizer != "word":  # the first of two letters; bpe has seen words behind a space only
        same = [w.startswith(word[:1]) for w in process.words]
        first = -math.log(process.first[np.array(same)].sum())
    assert store.floor_nats == pytest.approx(total - first, rel=1e-12)


def test_a_symbol_of_several_tokens_ends_where_its_last_one_does(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "copy", num_symbols=30, num_copied=2, lag=0)
    store = store_of(corpus, tmp_path, "byte")
    assert store.recalled is not None
    # `ab cd Copy ab cd`: each letter of the recalled symbols, not the spaces before them.
    assert store.recalled[: len(b"ab cd Copy ab cd\n") - 1].tolist() == (
        [0] * 10 + [1, 2, 0, 1, 2, 0]
    )


def test_units_and_shorter_training_texts_keep_the_floor_aligned(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "copy")
    whole = store_of(corpus, tmp_path, "word", "train")
    lines = prepare(corpus, TOKENIZERS["word"](), Unit.line, tmp_path).stores["train"]
    assert whole.floor is not None
    assert lines.floor is not None
    assert lines.floor.tolist() == whole.floor.tolist()
    short = Corpus("copy", first_bytes(corpus.train, 1000), corpus.valid, corpus.test)
    cut = prepare(short, TOKENIZERS["word"](), Unit.stream, tmp_path).stores["train"]
    assert cut.floor is not None
    assert 0 < len(cut) < len(whole)
    assert cut.floor.tolist() == whole.floor[: len(cut) - 1].tolist()


def test_unknown_words_have_no_floor(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "markov")
    tokenizer = TOKENIZERS["word"](max_size=5)  # type: ignore[call-arg]
    store = prepare(corpus, tokenizer, Unit.stream, tmp_path).stores["test"]
    assert "unknown tokens" in (store.lossless_reason() or "")
    assert store.floor is None
    assert store.floor_nats is None


def test_an_entry_of_the_same_text_without_a_source_is_another(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "markov")
    known = store_of(corpus, tmp_path, "word")
    paths = {split: str(corpus.split(split)[0].path) for split in SPLITS}
    plain = store_of(SOURCES["text"](**paths).build(tmp_path), tmp_path, "word")  # type: ignore[arg-type]
    assert plain.floor is None
    assert plain.fingerprint == known.fingerprint  # the tokens are the same
    assert plain.path != known.path


def test_a_damaged_floor_is_noticed_and_made_again(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "copy")
    store = store_of(corpus, tmp_path, "word")
    before = sha256(store.path / "floor.bin")
    with (store.path / "floor.bin").open("r+b") as file:
        file.write(b"\xff" * 8)
    with pytest.raises(DataError, match=r"floor\.bin is damaged"):
        store.verify(store.header.tokenizer, store.header.vocab_size)
    assert sha256(store_of(corpus, tmp_path, "word").path / "floor.bin") == before
    nats = corpus.test[0].truth
    assert nats is not None
    nats.nats.write_bytes(b"")
    with pytest.raises(DataError, match=r"test\.nats is shorter than the text"):
        store_of(corpus, tmp_path, "word")


def test_a_store_without_the_new_fields_is_still_read(tmp_path: Path) -> None:
    store = store_of(corpus_of(tmp_path, "markov"), tmp_path, "word")
    header = (store.path / "header.json").read_text()
    start = header.index(',\n "floor"')
    (store.path / "header.json").write_text(header[:start] + "\n}")
    assert TokenStore.open(store.path).floor is None


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (MarkovConfig, {"num_symbols": 1}, "data.num_symbols must be >= 2"),
        (MarkovConfig, {"order": 0}, "data.order must be >= 1"),
        (MarkovConfig, {"order": 9}, "data.num_symbols \\*\\* \\(data.order \\+ 1\\) must be <="),
        (MarkovConfig, {"concentration": 0.001}, "data.concentration must be >= 0.01"),
        (MarkovConfig, {"concentration": math.nan}, "data.concentration must be a finite number"),
        (MarkovConfig, {"tokens": 1}, "data.tokens must be >= 2"),
        (MarkovConfig, {"seed": -1}, "data.seed must be >= 0"),
        (MarkovConfig, {"root": "here"}, "data.root=here has no effect: data=markov is drawn"),
        (HmmConfig, {"num_states": 1}, "data.num_states must be >= 2"),
        (HmmConfig, {"emission_concentration": 0.0}, "data.emission_concentration must be a"),
        (DyckConfig, {"max_depth": 0}, "data.max_depth must be >= 1"),
        (DyckConfig, {"opening": 1.0}, "data.opening must be a number in"),
        (DyckConfig, {"opening": 0.9, "max_depth": 20}, "makes lines of more than"),
        (CopyConfig, {"lag": -1}, "data.lag must be >= 0"),
        (CopyConfig, {"num_copied": 0}, "data.num_copied must be >= 1"),
        (RecallConfig, {"num_pairs": 9}, "data.num_pairs=9 exceeds data.num_keys=8"),
        (RecallConfig, {"lag": 0, "num_distractors": 2}, "data.num_distractors=2 has no effect"),
    ],
)
def test_values_out_of_range_are_named(
    config: type, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)
