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
    """Over the whole state, h and c.

    Recurrent matrices begin as U(-1/sqrt(H), 1/sqrt(H)), the LSTM's gate biases by chrono
    initialisation with memories of up to a line.
    """
    monkeypatch.chdir(tmp_path)
    recall = {}
    for cell, experiment in (("lstm", "copy"), ("rnn", "copy_rnn")):
        recipe = [f"experiment={experiment}", f"name={cell}", f"seed={seed}", "trainer.bar=false"]
        assert main(["train", *recipe]) == 0
        (run,) = Path("runs", cell).iterdir()
        summary = json.loads((run / "summary.json").read_text())
        recall[cell] = summary["metrics"]["test/recall_accuracy"]
        run.rename(cell)
    assert recall["lstm"] > 0.99
    assert recall["rnn"] < 0.5
    assert main(["inspect", "run=[lstm,rnn]", "lags=60", "context=null", "steps=null"]) == 0
    lstm, rnn = json.loads(Path("inspect/together/inspection.json").read_text())
    half_lives = [one["gradient_flow"]["whole"]["half_life"] for one in (lstm, rnn)]
    assert half_lives[0] >= AT_LEAST * half_lives[1], half_lives
    # Across the wait of 20 steps the LSTM's gradient stays as large as it was before it.
    across, lost = (one["gradient_flow"]["whole"]["mean"] for one in (lstm, rnn))
    assert across[20] > 0.3 * across[4]
    assert lost[20] < 1e-4 * lost[0]
