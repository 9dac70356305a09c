"""`lm inspect` and `trainer.inspect_every`, as a user calls them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from console import error
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lm.cli import main
from lm.config import compose, key_of, prepare

TEXT = "the cat sat on the mat ; the dog sat on the log .\na bird saw the cat and the dog .\n"
RECIPE = [
    "data=text", "data.path=text.txt", "tokenizer=word", "model.embedding_size=8",
    "model.hidden_size=10", "trainer.batch_size=4", "trainer.window=12", "trainer.max_steps=12",
    "trainer.valid_every=6", "trainer.valid_streams=2", "trainer.sample_tokens=0",
    "trainer.test=false", "schedule=constant", "optim.lr=0.01", "runtime.device=cpu",
    "trainer.log_every=1", "data.valid_fraction=0.2", "data.test_fraction=0.1", "trainer.keep=9",
]  # fmt: skip
PLAIN = ["steps=null", "context=null", "pictures=false"]
FEW = ["lags=8", "positions=6", "context=16", "steps=3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of an LSTM and an RNN, the LSTM watched while it trained, and one that was not."""
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(TEXT * 20)
        for name, overrides in {
            "lstm": ["trainer.inspect_every=5", "model.num_layers=2"],
            "unwatched": ["model.num_layers=2"],
            "rnn": ["model=rnn", "trainer.clip.norm=null"],
            "ngram": ["model=ngram"],
        }.items():
            given = {key_of(override) for override in overrides}
            recipe = [item for item in RECIPE if key_of(item) not in given]
            if name == "ngram":
                recipe = [i for i in recipe if i.startswith(("data", "tokenizer", "runtime"))]
            assert main(["train", *recipe, f"name={name}", *overrides]) == 0
            (run,) = Path("runs", name).iterdir()
            run.rename(name)
    return folder


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def inspect(*overrides: str) -> Any:
    assert main(["inspect", *FEW, *overrides]) == 0


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    inspect("run=lstm")
    shown = capsys.readouterr().out
    assert "LSTM 2x10" in shown
    for word in ("half-life", "spectral radius", "state carried", "moves a parameter", "clipping"):
        assert word in shown
    folder = Path("lstm/inspect/step-000000012")
    if not folder.exists():  # the best may be the one before
        folder = Path("lstm/inspect/step-000000006")
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == [
        "context.png",
        "gates.png",
        "gradient_flow.png",
        "matrices.png",
        "updates.png",
    ]
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)
    found = json.loads((folder / "inspection.json").read_text())
    assert len(found["gradient_flow"]["whole"]["mean"]) == 9
    assert [layer.keys() for layer in found["gradient_flow"]["layers"]] == [
        {"state", "h", "c"}, {"state", "h", "c"},
    ]  # fmt: skip
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert "inspect/gradient_flow" in board.Tags()["images"]
    assert "inspect/layers.1.f" in board.Tags()["histograms"]
    assert rows(folder / "metrics.jsonl")[0]["inspect/gradient_half_life"] == pytest.approx(
        found["gradient_flow"]["whole"]["half_life"]
    )
    inspect("run=lstm", "pictures=false")  # replaces what is there
    assert sorted(path.name for path in folder.iterdir()) == [
        "inspection.json", "metrics.jsonl", "tensorboard",
    ]  # fmt: skip


def test_several_runs_side_by_side() -> None:
    inspect("run=[lstm,rnn]", "output=both", *PLAIN)
    found = json.loads(Path("both/inspection.json").read_text())
    assert [one["label"] for one in found] == ["LSTM 2x10", "RNN 1x10"]
    assert found[0]["update_ratios"] is found[0]["context"] is None
    assert len(list(Path("both").glob("*/tensorboard/*"))) == 2


def test_two_checkpoints_of_a_run_and_one_of_another_name() -> None:
    inspect("run=[lstm/checkpoints/step-000000006,lstm]", "checkpoint=last", *PLAIN)
    found = json.loads(Path("lstm/inspect/together/inspection.json").read_text())
    assert [one["step"] for one in found] == [6, 12]
    assert len({one["label"] for one in found}) == 2
    shutil.copytree("lstm/checkpoints/step-000000006", "elsewhere/mine")
    inspect("run=elsewhere/mine", "output=renamed", *PLAIN)
    assert json.loads(Path("renamed/inspection.json").read_text())["step"] == 0


def test_rehearsed_steps_are_those_that_training_took() -> None:
    """From the checkpoint of step 6: the norms of steps 7 to 9 are those that the run logged."""
    inspect("run=lstm", "checkpoint=step-000000006", "output=rehearsal", "pictures=false")
    found = json.loads(Path("rehearsal/inspection.json").read_text())
    logged = {row["step"]: row for row in rows(Path("lstm/metrics.jsonl"))}
    norms = [logged[step]["optim/gradient_norm"] for step in (7, 8, 9)]
    assert found["clip"]["norms"] == pytest.approx(norms, rel=1e-6)
    assert found["lr"] == logged[7]["optim/learning_rate"]
    assert found["clip"]["threshold"] == 0.25


def test_watching_a_run_changes_nothing_in_it() -> None:
    def weights(run: str) -> dict[str, torch.Tensor]:
        return load_file(Path(run, "checkpoints/step-000000012/model.safetensors"))

    watched, alone = weights("lstm"), weights("unwatched")
    assert all(torch.equal(watched[name], alone[name]) for name in alone)
    looks = [row for row in rows(Path("lstm/metrics.jsonl")) if "inspect/gradient_reach" in row]
    assert [row["step"] for row in looks] == [5, 10]
    assert {"inspect/saturation/layers.0.f", "inspect/gradient_half_life/layers.1.c"} <= set(
        looks[0]
    )
    ratios = {tag for tag in looks[0] if tag.startswith("inspect/update_ratio/")}
    assert "inspect/update_ratio/layers.1.weight_hh" in ratios
    assert all(looks[0][tag] > 0 for tag in ratios)


def test_a_run_that_does_not_clip_is_advised() -> None:
    inspect("run=rnn", "output=rnn_inspected", "pictures=false")
    (found,) = [json.loads(Path("rnn_inspected/inspection.json").read_text())]
    assert found["clip"]["threshold"] is None
    assert any("does not clip" in reason for reason in found["clip"]["reasons"])
    assert found["activations"][0]["half_lives"] is None


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (["run=ngram"], 2, "is an n-gram model"),
        (["run=nowhere"], 4, "no run or checkpoint at nowhere"),
        (["run=lstm", "lags=0"], 2, "lags must be >= 1, got 0"),
        (["run=lstm", "lags=400"], 3, "too few to look 401 steps back"),
        (["run=lstm", "output=."], 2, "is there already"),
        (["run=lstm", "lag=4"], 2, "nearest: lags"),
        ([], 2, "run"),
    ],
)
def test_mistakes_are_said(
    overrides: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *overrides]) == code
    assert said in error(capsys)


def test_paths_with_commas_survive() -> None:
    given = prepare("run=['a, b',c]", lists=frozenset({"run"}))
    assert compose("inspect", [given]).run == ["a, b", "c"]
