"""Whole runs on texts whose source is known: what they come to is held against the truth."""

import json
from pathlib import Path
from typing import Any

import pytest

from lm.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(*overrides: str) -> dict[str, Any]:
    """`lm train`, then `lm evaluate` of the run; its numbers on the test split."""
    assert main(["train", *overrides, "runtime.device=cpu"]) == 0
    (run,) = Path("runs").glob("*/*")
    assert main(["evaluate", f"run={run}", "output=scores.json", "runtime.device=cpu"]) == 0
    found: dict[str, Any] = json.loads(Path("scores.json").read_text())["test"]
    summary = json.loads((run / "summary.json").read_text())
    assert found["loss"] == pytest.approx(summary["metrics"]["test/loss"], rel=1e-6)
    return found


@pytest.mark.parametrize("source", ["markov", "hmm", "dyck"])
def test_a_model_comes_close_to_its_source_and_not_below(source: str) -> None:
    found = trained(f"experiment={source}")
    assert found["excess"] <= 0.02 * found["floor"]
    # Better than the truth, by more than chance, would be a fault of the evaluation.
    assert found["excess"] >= -3 * found["excess_error"]


def test_an_lstm_copies_over_the_wait() -> None:
    assert trained("experiment=copy")["recall_accuracy"] > 0.99


def test_an_elman_network_does_not() -> None:
    assert trained("experiment=copy_rnn")["recall_accuracy"] < 0.5


def test_an_lstm_recalls_by_key() -> None:
    assert trained("experiment=recall")["recall_accuracy"] > 0.99
