"""`lm train model=ngram` and the other verbs on what it leaves, as a user calls them."""

import json
import math
from pathlib import Path

import pytest
import torch
from console import error, tree
from safetensors.torch import load_file
from torch import Tensor

import lm
from lm.checkpoint import read, write
from lm.cli import main
from lm.commands import count
from lm.data.corpus import Unit
from lm.data.streams import Streams
from lm.errors import DataError
from lm.evaluation import evaluate
from lm.metrics.perplexity import Score

TEXT = (
    "".join(
        f"{subject} {verb} the {thing} and the {other} .\n"
        for subject in ("a cat", "the dog", "one bird")
        for verb in ("sees", "likes", "has")
        for thing in ("mat", "log", "tree")
        for other in ("hat", "rat", "bat")
    )
    * 4
)
RECIPE = [
    "model=ngram", "model.order=3", "data=text", "data.path=text.txt", "tokenizer=word",
    "runtime.device=cpu",
]  # fmt: skip
COUNTED = "model=ngram is counted, not trained by gradient: it has no use for "


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def train(*overrides: str) -> Path:
    assert main(["train", *RECIPE, *overrides]) == 0
    return max(Path("runs").glob("*/*/"), key=lambda path: path.stat().st_mtime_ns)


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_complete_and_evaluates_to_its_own_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("name=first", "data.unit=line")
    assert run.parent == Path("runs/first")
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "config.yaml", "environment.json", "lock", "metrics.jsonl",
        "overrides.yaml", "summary.json", "tensorboard", "train.log",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "3-grams: " in said
    assert f"lm evaluate run={run} splits=[valid,test]" in said
    assert (run / "train.log").read_text().count("exact; ") == 2
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("done", 0)
    (folder,) = (run / "checkpoints").glob("step-*")
    assert {(run / "checkpoints" / name).read_text() for name in ("last", "best")} == {folder.name}
    tensors = load_file(folder / "model.safetensors")
    ngrams = sum(len(tensor) for name, tensor in tensors.items() if name.startswith("keys"))
    assert summary["parameters"] == ngrams
    logged = {tag: value for row in rows(run) for tag, value in row.items()}
    assert main(["evaluate", f"run={run}", "splits=[valid,test]", "output=scores.json"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    for split in ("valid", "test"):
        assert scores[split]["loss"] == logged[f"{split}/loss"]
    assert scores["test"]["loss"] == summary["metrics"]["test/loss"]
    assert scores["valid"]["loss"] == summary["best_valid_loss"]


def test_no_ngram_crosses_the_end_of_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    units: list[object] = []

    def spied(*arguments: object, unit: Unit) -> Score:
        units.append(unit)
        return evaluate(*arguments, unit=unit)  # type: ignore[arg-type]

    monkeypatch.setattr(count, "evaluate", spied)
    inside = {}
    for unit in ("stream", "line"):
        loaded = lm.load(train(f"data.unit={unit}", f"name={unit}"))
        tensors, size = loaded.model.tensors(), loaded.tokenizer.vocab_size
        middle = tensors["keys.2"][tensors["keys.3"] // size] % size
        inside[unit] = int(loaded.tokenizer.encode(b"\n")[0]) in middle.tolist()
    assert inside == {"stream": True, "line": False}
    assert units == [Unit.stream] * 2 + [Unit.line] * 2


def test_a_loaded_model_scores_and_generates() -> None:
    loaded = lm.load(train())
    tokens, nats = loaded.score("a cat sees the mat")
    assert tokens == ["cat", "sees", "the", "mat"]
    _, swapped = loaded.score("a cat the sees mat")
    assert nats.sum() < swapped.sum()
    # `a cat` is followed by three verbs, equally often.
    assert nats[1].item() == pytest.approx(math.log(3), abs=0.05)
    texts = [loaded.generate("a cat", num_tokens=9, num_samples=2, seed=3) for _ in range(2)]
    assert texts[0] == texts[1]
    assert all(text.split()[0] in ("sees", "likes", "has") for text in texts[0])
    assert loaded.model.to("cpu") is loaded.model


def test_generate_prints_the_prompt_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    for prompt in ("the dog", ""):
        capsys.readouterr()
        assert main(["generate", f"run={run}", f"prompt={prompt}", "num_tokens=6"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(prompt)
        assert len(said.split()) > 4


def test_a_sweep_over_the_order_gives_each_jobs_validation_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: list[float | None] = []
    whole = count.run

    def run(*arguments: object) -> float | None:
        losses.append(whole(*arguments))  # type: ignore[arg-type]
        return losses[-1]

    monkeypatch.setattr(count, "run", run)
    recipe = [item for item in RECIPE if not item.startswith("model.order")]
    assert main(["train", "-m", *recipe, "model.order=1,3", "trainer.test=false"]) == 0
    assert losses[0] > losses[1] > 0  # type: ignore[operator]
    logged = [
        json.loads(path.read_text())["best_valid_loss"]
        for path in sorted(Path("runs/default").glob("multirun_*/*/summary.json"))
    ]
    assert logged == losses


def test_the_test_split_is_left_alone_where_asked() -> None:
    run = train("trainer.test=false", "trainer.bar=false")
    assert "test/loss" not in {tag for row in rows(run) for tag in row}
    assert json.loads((run / "summary.json").read_text())["metrics"].keys() == {"valid/best_loss"}


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("optim.lr=0.1", "optim.lr"),
        ("schedule=constant", "schedule"),
        ("trainer.clip.norm=1", "trainer.clip.norm"),
        ("lr_scales.head=0.5", "lr_scales"),
        ("resume=nowhere", "resume"),
    ],
)
def test_what_acts_on_training_by_gradient_is_refused(
    override: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree()
    assert main(["train", *RECIPE, override]) == 2
    assert error(capsys) == f"lm: error: {COUNTED}{name}"
    assert tree() == before


def test_an_order_out_of_range_and_a_field_of_others_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", *RECIPE, "model.order=0"]) == 2
    assert "model.order must be >= 1, got 0" in error(capsys)
    assert main(["train", *RECIPE, "model.hidden_size=4"]) == 2
    assert "unknown field model.hidden_size of the chosen model" in error(capsys)


def test_a_counted_run_cannot_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    for how in ("resume", "init_from"):
        capsys.readouterr()
        before = tree()
        assert main(["train", "data=text", "data.path=text.txt", f"{how}={run}"]) == 4
        assert f"{run} was counted, not trained by gradient" in error(capsys)
        assert tree() == before


def test_a_failure_is_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Streams) -> object:
        raise DataError("the disk is gone")

    monkeypatch.setattr(Streams, "evaluation_windows", fails)
    assert main(["train", *RECIPE]) == 3
    (summary,) = Path("runs").glob("*/*/summary.json")
    content = json.loads(summary.read_text())
    assert (content["status"], content["reason"]) == ("failed", "the disk is gone")


def test_a_spoiled_checkpoint_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    (folder,) = (run / "checkpoints").glob("step-*")
    loaded = lm.load(run)
    tensors: dict[str, Tensor] = loaded.model.tensors()
    tensors["share.2"] = torch.full_like(tensors["share.2"], 7.0)
    checkpoint = read(folder)
    checkpoint.model = tensors
    write(Path("stranger"), checkpoint)
    capsys.readouterr()
    assert main(["evaluate", "run=stranger"]) == 4
    assert "n-grams of 2 words: " in error(capsys)
