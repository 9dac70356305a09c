"""The floor beside the loss: what the excess is, how sure it is, and what is recalled."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_problem import V, ids_of, model_of

from lm.cli import main
from lm.data.corpus import Unit
from lm.data.store import Block, TokenStore, write_store
from lm.data.truth import TokenTruth
from lm.evaluation import evaluate
from lm.evaluation.bootstrap import Blocks, standard_error
from lm.evaluation.exact import recall
from lm.evaluation.method import Static
from lm.evaluation.text import Text
from lm.metrics.perplexity import Score
from lm.models import RecurrentModel

KNOWN = [
    "tokenizer=word", "model.embedding_size=6", "model.hidden_size=6", "trainer.batch_size=4",
    "trainer.window=12", "trainer.max_steps=4", "trainer.valid_every=4", "trainer.log_every=2",
    "trainer.valid_streams=3", "trainer.sample_tokens=0", "schedule=constant",
    "runtime.device=cpu", "runtime.kernels=torch",
    "data.tokens=600", "data.valid_tokens=300", "data.test_tokens=1200",
]  # fmt: skip


def store_of(folder: Path, n: int, marks: list[int] | None = None) -> TokenStore:
    """Random tokens that cost their source 0, 1, 2, … hundredths of a nat."""
    recalled = None if marks is None else np.array(marks, np.uint8)
    truth = TokenTruth(np.arange(n) / 100, recalled)
    return write_store(folder / "store", [Block(ids_of(n), None, truth)], vocab_size=V)


def test_the_first_token_is_not_in_the_floor(tmp_path: Path) -> None:
    store = store_of(tmp_path, 50)
    score = evaluate(model_of(), store, num_streams=3, window=7)
    assert score.floor_nats == pytest.approx(sum(range(1, 50)) / 100)
    assert score.floor == pytest.approx(0.25)
    text = Text("toy", store, Unit.stream)
    nats = Static(model_of(), window=9).nats(text)
    assert text.score(nats).floor_nats == score.floor_nats
    excess = text.excess(nats)
    assert excess is not None
    assert excess.tolist() == pytest.approx((nats - torch.arange(1, 50) / 100).tolist())


def test_score_says_how_far_the_model_is_from_the_source() -> None:
    score = Score(110.0, 100, 200, 100, 1, None, 100.0, 40, 39)
    assert score.excess == pytest.approx(0.1)
    assert (
        "floor 1.0000 (perplexity 2.72), excess 0.1000 nats (+10.0 %)  recalled 97.50 % of 40"
        in score.describe()
    )
    scalars = score.scalars("valid")
    assert scalars["valid/floor"] == 1.0
    assert scalars["valid/floor_perplexity"] == pytest.approx(math.e)
    assert scalars["valid/excess"] == pytest.approx(0.1)
    assert scalars["valid/recall_accuracy"] == 0.975
    assert Score.from_json(score.to_json()) == score
    plain = Score(110.0, 100, 200, 100, 1)
    assert "floor" not in plain.describe()
    assert not {"valid/floor", "valid/excess", "valid/recall_accuracy"} & set(
        plain.scalars("valid")
    )
    before = {key: value for key, value in plain.to_json().items() if "recalled" not in key}
    del before["floor_nats"]
    assert Score.from_json(before) == plain  # what an older run wrote
    assert "excess 1.1000 nats  (exact" in Score(110.0, 100, 200, 100, 1, None, 0.0).describe()


@pytest.mark.parametrize("window", [100, 3])
def test_symbols_are_recalled_when_all_their_tokens_are(tmp_path: Path, window: int) -> None:
    marks = [0, 0, 1, 2, 0, 2, 2, 0, 1, 1, 2, 0]
    store, model = store_of(tmp_path, 12, marks), model_of(scale=3.0)
    model.head.bias.data[int(store[5:6][0])] += 5  # a first choice that is right now and then
    block = torch.from_numpy(store[0:12])[:, None]
    log_prob, _ = model.log_prob(block[:-1])
    first = (log_prob.argmax(-1) == block[1:])[:, 0].tolist()
    wanted = sum(all(part) for part in (first[1:3], first[4:5], first[5:6], first[7:10]))
    assert 0 < wanted < 4
    score = evaluate(model, store, window=window)
    assert (score.num_recalled, score.num_recalled_right) == (4, wanted)
    plain = evaluate(model, store_of(tmp_path / "plain", 12), window=window)
    assert score.nats == pytest.approx(plain.nats, rel=1e-6)
    several = evaluate(model, store, num_streams=4, window=window)
    alike = evaluate(model, store_of(tmp_path / "plain", 12), num_streams=4, window=window)
    assert several.nats == pytest.approx(alike.nats, rel=1e-6)


def test_recalled_symbols_are_counted_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path, 12, [0, 0, 1, 2, 0, 2, 2, 0, 1, 1, 2, 1])
    right = torch.ones(11, dtype=torch.bool)
    assert recall(store, right) == (4, 4)  # the last symbol is cut off, and does not count
    right[[1, 3]] = False  # the first token of the first symbol; a token outside of all
    assert recall(store, right) == (4, 3)
    right[[7, 8, 9]] = False  # every token of one symbol
    assert recall(store, right) == (4, 2)
    right[10] = False  # of the cut one
    assert recall(store, right) == (4, 2)


def test_the_standard_error_is_that_of_a_ratio() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=4000))
    equal = Blocks(torch.arange(100, 4001, 100), "40 blocks")
    means = values.view(40, 100).mean(1)
    assert standard_error(values, equal) == pytest.approx((means.std() / 40**0.5).item())
    # Of blocks of one size it is the textbook's; of two sizes, whatever is constant has none.
    ends = torch.cat([torch.arange(50, 2001, 50), torch.arange(2100, 4001, 100)])
    constant = torch.full((4000,), 0.3, dtype=torch.float64)
    assert standard_error(constant, Blocks(ends, "")) == pytest.approx(0, abs=1e-12)
    assert standard_error(values, Blocks(torch.tensor([2000, 4000]), "")) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `data=copy`, as a user makes it."""
    folder = tmp_path_factory.mktemp("floor")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sizes = ["data.num_copied=2", "data.lag=1"]
        assert main(["train", "data=copy", *KNOWN, *sizes]) == 0
        (found,) = Path("runs").glob("*/*")
        return folder / found


def read_rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


FLOOR = 2 * math.log(8) / 7


def test_a_run_logs_the_floor_beside_its_losses(run: Path) -> None:
    rows = read_rows(run)
    train = [row for row in rows if "train/loss" in row]
    assert len(train) == 2
    for row in train:
        assert row["train/floor"] == pytest.approx(FLOOR, rel=0.01)
        assert row["train/floor_perplexity"] == pytest.approx(math.exp(row["train/floor"]))
    (valid,) = [row for row in rows if "valid/loss" in row]
    assert valid["valid/excess"] == pytest.approx(valid["valid/loss"] - valid["valid/floor"])
    assert 0 <= valid["valid/recall_accuracy"] <= 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["test/floor"] == pytest.approx(FLOOR, rel=0.01)
    assert {"test/floor_perplexity", "test/excess", "test/recall_accuracy"} <= set(
        summary["metrics"]
    )
    assert summary["test"]["num_recalled"] == 2 * 172


def test_evaluate_gives_the_excess_with_its_error(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parents[2])
    arguments = ["evaluate", f"run={run}", f"output={tmp_path / 'scores.json'}"]
    arguments.append("bootstrap.resamples=100")
    assert main(arguments) == 0
    line = capsys.readouterr().out
    found = json.loads((tmp_path / "scores.json").read_text())["test"]
    summary = json.loads((run / "summary.json").read_text())
    for name in ("floor", "floor_perplexity", "excess", "recall_accuracy"):
        # Kernels are measured anew, and another one rounds otherwise.
        assert found[name] == pytest.approx(summary["metrics"][f"test/{name}"], rel=1e-6)
    assert f"excess's standard error {found['excess_error']:.4f} (25 blocks" in line
    assert 0 < found["excess_error"] < 0.1
    assert main([*arguments, "method=temperature", "temperature=2"]) == 0
    head, titles, static, _ = capsys.readouterr().out.splitlines()
    assert head.endswith(f"floor {found['floor']:.4f} nats per token (perplexity 1.81)")
    assert "  excess  " in titles
    assert f"{found['excess']:.4f} ± {found['excess_error']:.4f}" in static


@pytest.mark.slow
def test_a_resumed_run_ends_where_the_whole_one_does(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parents[2])
    whole = ["train", "data=copy", *KNOWN, "data.num_copied=2", "data.lag=1", "name=short"]
    assert main([*whole, "trainer.max_steps=2"]) == 0
    (short,) = Path("runs/short").iterdir()
    assert main(["train", f"resume={short}", "trainer.max_steps=4"]) == 0
    metrics = [json.loads((path / "summary.json").read_text())["metrics"] for path in (short, run)]
    assert metrics[0] == metrics[1]


def test_a_leaked_future_falls_below_the_floor(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def leaks(self: RecurrentModel, tokens: torch.Tensor, *_: Any, **__: Any) -> Any:
        following = torch.roll(tokens, -1, 0)
        sure = torch.full((*tokens.shape, self.vocab_size), -6.0)
        return sure.scatter(-1, following[..., None], 0.0).log_softmax(-1), None

    monkeypatch.setattr(RecurrentModel, "log_prob", leaks)
    monkeypatch.chdir(run.parents[2])
    arguments = ["evaluate", f"run={run}", f"output={tmp_path / 'scores.json'}"]
    assert main([*arguments, "bootstrap.resamples=100"]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())["test"]
    assert found["excess"] < -3 * found["excess_error"]
