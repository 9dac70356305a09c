"""Evaluation is exact: every target once, no dependence on chunks, streams labelled."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lm.data.corpus import Unit
from lm.data.store import Block, TokenStore, write_store
from lm.data.streams import Streams
from lm.errors import DataError
from lm.evaluation import evaluate
from lm.metrics.perplexity import Score, exp
from lm.models import CELLS, RecurrentModel

V = 13


def store_of(tmp_path: Path, n: int, units: list[int] | None = None) -> TokenStore:
    ids = np.random.default_rng(0).integers(0, V, n)
    ends = None if units is None else np.array(units, np.int64)
    return write_store(tmp_path / "store", [Block(ids, ends)], vocab_size=V)


def model_of(name: str = "lstm") -> RecurrentModel:
    return CELLS[name](embedding_size=5, hidden_size=6).build(V, seed=2)


def direct(model: RecurrentModel, store: TokenStore) -> float:
    """Σ NLL by one forward pass over the whole split in float64."""
    ids = torch.from_numpy(store[0 : len(store)])[:, None]
    return model.double()(ids[:-1], ids[1:]).nll.sum().item()


@pytest.mark.parametrize("name", CELLS)
def test_single_stream_does_not_depend_on_the_chunk_length(tmp_path: Path, name: str) -> None:
    store, model = store_of(tmp_path, 301), model_of(name)
    scores = [evaluate(model, store, window=window) for window in (1, 7, 100, 300, 5000)]
    wanted = direct(model, store)
    for score in scores:
        assert score.num_tokens == 300
        assert score.nats == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("n", [2, 17, 100, 101, 119])
@pytest.mark.parametrize("streams", [1, 2, 7, 16, 500])
def test_every_target_is_counted_once_for_any_number_of_streams(
    tmp_path: Path, n: int, streams: int
) -> None:
    store = store_of(tmp_path, n)
    streams = min(streams, n - 1)
    parts = list(Streams(store, streams, 5, Unit.stream).evaluation_windows())
    seen = torch.cat([part.targets.flatten() for part in parts])
    assert torch.equal(seen.sort().values, torch.from_numpy(store[1:n]).sort().values)
    context = torch.cat([part.tokens.flatten() for part in parts])
    assert torch.equal(context.sort().values, torch.from_numpy(store[0 : n - 1]).sort().values)
    score = evaluate(model_of(), store, num_streams=streams, window=5)
    assert (score.num_tokens, score.num_streams) == (n - 1, streams)


def test_several_streams_carry_their_state_to_their_last_target(tmp_path: Path) -> None:
    store, model = store_of(tmp_path, 24), model_of()  # 23 targets: streams of 8, 8 and 7
    ids = torch.from_numpy(store[0:24])[:, None]
    wanted = sum(
        model(ids[a:b], ids[a + 1 : b + 1]).nll.sum().item() for a, b in ((0, 8), (8, 16), (16, 23))
    )
    score = evaluate(model, store, num_streams=3, window=3)
    assert score.nats == pytest.approx(wanted, rel=1e-6)
    assert score.nats != pytest.approx(evaluate(model, store).nats, rel=1e-6)


def test_units_reset_the_state_where_they_end(tmp_path: Path) -> None:
    store, model = store_of(tmp_path, 40, units=[9, 22, 39]), model_of()
    ids = torch.from_numpy(store[0:40])[:, None]
    # The token that ends a unit is the begin symbol of the next: read with a fresh state.
    wanted = sum(
        model(ids[a:b], ids[a + 1 : b + 1]).nll.sum().item() for a, b in ((0, 9), (9, 22), (22, 39))
    )
    for window in (1, 4, 39):
        score = evaluate(model, store, window=window, unit=Unit.document)
        assert score.nats == pytest.approx(wanted, rel=1e-6)


def test_a_uniform_model_has_perplexity_v(tmp_path: Path) -> None:
    model = model_of()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert evaluate(model, store_of(tmp_path, 50)).perplexity == pytest.approx(V, rel=1e-6)


def test_evaluation_leaves_no_gradient_and_no_target_is_an_error(tmp_path: Path) -> None:
    model = model_of()
    evaluate(model, store_of(tmp_path, 30))
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(DataError, match="has 1 tokens"):
        evaluate(model, store_of(tmp_path, 1))


def test_score_arithmetic() -> None:
    nats = 80 * math.log(2)  # one bit for each of 80 tokens
    score = Score(nats=nats, num_tokens=80, num_bytes=160, num_words=40, num_streams=1)
    assert score.loss == pytest.approx(math.log(2))
    assert score.perplexity == pytest.approx(2)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert score.word_perplexity == pytest.approx(4)
    assert "exact; 80 tokens, 160 bytes, 40 words" in score.describe()
    lossy = Score(nats, 80, 160, 40, 16, lossy="3 unknown tokens")
    assert lossy.bits_per_byte is None
    assert "n/a: 3 unknown tokens  (16 streams" in lossy.describe()
    assert "valid/bits_per_byte" not in lossy.scalars("valid")
    assert exp(1e9) == math.inf


def test_training_streams_are_contiguous_and_report_the_remainder(tmp_path: Path) -> None:
    store = store_of(tmp_path, 103)
    streams = Streams.for_training(store, 4, 10, Unit.stream, label="toy")
    assert (streams.length, streams.remainder, streams.windows_per_epoch) == (25, 2, 3)
    windows = [streams.window(position) for position in (0, 10, 20)]
    assert [len(window.tokens) for window in windows] == [10, 10, 5]
    tokens = torch.cat([window.tokens for window in windows])
    targets = torch.cat([window.targets for window in windows])
    ids = torch.from_numpy(store[0:103])
    for stream in range(4):
        assert torch.equal(tokens[:, stream], ids[stream * 25 : stream * 25 + 25])
        assert torch.equal(targets[:, stream], ids[stream * 25 + 1 : stream * 25 + 26])
    with pytest.raises(DataError, match=r"toy has 103 tokens.*need at least 108"):
        Streams.for_training(store, 4, 26, Unit.stream, label="toy")
