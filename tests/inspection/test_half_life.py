"""The copy task after training: an LSTM learns across the wait, an Elman network does not."""

import json
from pathlib import Path

import pytest

from lm.cli import main

AT_LEAST = 5
"""How many times the Elman network's half-life the LSTM's has to be."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_gradient_of_an_lstm_lives_longer(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the whole state, h and c; recurrent matrices begin as U(-1/sqrt(H), 1/sqrt(H))."""
    monkeypatch.chdir(tmp_path)
    recall = {}
    for cell in ("lstm", "rnn"):
        recipe = ["experiment=copy", f"model={cell}", f"name={cell}", f"seed={seed}"]
        assert main(["train", *recipe, "trainer.bar=false"]) == 0
        (run,) = Path("runs", cell).iterdir()
        summary = json.loads((run / "summary.json").read_text())
        recall[cell] = summary["metrics"]["test/recall_accuracy"]
        run.rename(cell)
    assert recall["lstm"] > 0.99
    assert recall["rnn"] < 0.5
    assert main(["inspect", "run=[lstm,rnn]", "lags=60", "context=null", "steps=null"]) == 0
    lstm, rnn = json.loads(Path("inspect/inspection.json").read_text())
    half_lives = [one["gradient_flow"]["whole"]["half_life"] for one in (lstm, rnn)]
    assert half_lives[0] >= AT_LEAST * half_lives[1], half_lives
    # Across the wait of 20 steps the LSTM's gradient is as large as it was before it.
    assert (
        lstm["gradient_flow"]["whole"]["mean"][20] > 0.3 * lstm["gradient_flow"]["whole"]["mean"][4]
    )
    assert (
        rnn["gradient_flow"]["whole"]["mean"][20] < 1e-6 * rnn["gradient_flow"]["whole"]["mean"][0]
    )
