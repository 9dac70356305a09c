"""`lm reproduce` as a user calls it, on a row with a recipe of a few steps."""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lm
from lm.cli import main
from lm.cli.jobs import run_job
from lm.cli.report import report
from lm.cli.rows import with_recipe
from lm.config import Invocation, compose, prepare, recipe_changes
from lm.errors import LmError, Stopped
from lm.reproduction import registry
from lm.reproduction.records import measured
from lm.reproduction.row import Metric, Row, Stage
from lm.reproduction.verdict import Comparison, Verdict
from lm.run_directory import RunDirectory
from lm.training.step import TrainStep

TEXT = "".join(
    f"{subject} {verb} the {thing} .\n"
    for subject in ("a cat", "the dog", "one bird")
    for verb in ("sees", "likes", "has")
    for thing in ("mat", "log", "tree")
)
SPLITS = {"train": TEXT * 6, "valid": TEXT, "test": TEXT.replace("one bird", "a dog")}
RECIPE = (
    "data=text", "data.train=train.txt", "data.valid=valid.txt", "data.test=test.txt",
    "tokenizer=word", "model.embedding_size=8", "model.hidden_size=12", "trainer.batch_size=4",
    "trainer.window=12", "trainer.max_steps=20", "trainer.valid_every=10",
    "trainer.valid_streams=2", "trainer.log_every=5", "schedule=constant", "optim.lr=0.01",
)  # fmt: skip
QUIET = ["runtime.device=cpu", "runtime.kernels=torch", "trainer.sample_tokens=0"]
TINY = Row(
    name="tiny",
    system="an LSTM",
    data="text",
    source="this test",
    stages=(Stage(overrides=RECIPE, published=1000.0),),
    hashes={name: hashlib.sha256(text.encode()).hexdigest() for name, text in SPLITS.items()},
)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.ROWS, "tiny", TINY)
    for name, text in SPLITS.items():
        Path(f"{name}.txt").write_text(text)


def reproduce(*overrides: str, code: int = 0) -> None:
    """What `lm reproduce tiny` does, without Hydra's own half a second before it."""
    arguments = with_recipe(["tiny", *QUIET, *overrides], needed=True)
    prepared = [prepare(argument) for argument in arguments]
    found = 0
    try:
        run_job("reproduce", Invocation(compose("reproduce", prepared), tuple(prepared)))
    except (LmError, Stopped) as error:
        found = report(error)
    assert found == code


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with the row done once, and what the command line said."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.chdir(place)
        patch.setitem(registry.ROWS, "tiny", TINY)
        for name, text in SPLITS.items():
            Path(f"{name}.txt").write_text(text)
        assert main(["reproduce", "tiny", *QUIET, "record=kept"]) == 0
    (place / "said").write_text(said.getvalue())
    return place


@pytest.fixture
def done(trained: Path) -> Path:
    """That run in this test's own folder of runs."""
    shutil.copytree(trained / "runs", "runs")
    (run,) = runs()
    return run


def published(monkeypatch: pytest.MonkeyPatch, value: float, **changes: Any) -> None:
    stage = replace(TINY.stages[0], published=value)
    monkeypatch.setitem(registry.ROWS, "tiny", replace(TINY, stages=(stage,), **changes))


def runs(folder: str = "runs") -> list[Path]:
    return sorted(path.parent for path in Path(folder).glob("reproduce/tiny/**/summary.json"))


def record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "reproduction.json").read_text())
    return content


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    name = (run / "checkpoints" / "last").read_text()
    return load_file(run / "checkpoints" / name / "model.safetensors")


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(TrainStep, "__call__", refuse)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, after: int = 0) -> None:
    """Send a real signal in the middle of a step, of the training begun after some others."""
    whole, begun = TrainStep.__call__, [0]

    def call(self: TrainStep, *arguments: object, **named: object) -> object:
        begun[0] += named["step"] == 0
        if named["step"] == step - 1 and begun[0] > after:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainStep, "__call__", call)


def test_a_row_passes_and_leaves_a_record(trained: Path, done: Path) -> None:
    found = record(done)
    (kept,) = (trained / "kept").iterdir()
    assert json.loads(kept.read_text()) == found
    assert kept.name == f"tiny_{done.name}.json"
    # The numbers, from what `lm evaluate` says by itself.
    assert main(["evaluate", f"run={done}", "output=scores.json", *QUIET[:2]]) == 0
    score = json.loads(Path("scores.json").read_text())["test"]
    assert found["measured"] == pytest.approx(score["perplexity"], rel=1e-12)
    assert found["test"]["num_tokens"] == len(SPLITS["test"].split()) + 27 - 1
    assert found["relative_difference"] == pytest.approx(score["perplexity"] / 1000 - 1)
    said = (trained / "said").read_text()
    assert said.startswith(f"PASS  tiny: test perplexity {score['perplexity']:.2f}, published 1000")
    assert (found["verdict"], found["published"], found["tolerance"]) == ("PASS", 1000.0, 0.04)
    assert (found["seed"], found["modified"]) == (1, [])
    assert found["data"]["digests"] == TINY.hashes
    assert found["data"]["verified"] is True
    assert [point["step"] for point in found["validation"]] == [10, 20]
    assert found["training"]["steps"] == 20
    assert found["training"]["tokens_per_second"] > 0
    machine = found["machine"]
    assert (machine["torch"], machine["lm"]) == (torch.__version__, lm.__version__)
    assert machine["precision"] in ("fp32", "bf16")
    assert machine["cpus"] == os.cpu_count()
    assert str(trained) not in kept.read_text()


def test_a_failure_is_an_exit_code_of_its_own(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)  # the run is done, and only compared again
    published(monkeypatch, 2.0)
    reproduce(code=8)
    said = capsys.readouterr()
    assert said.out.startswith("FAIL  tiny: test perplexity ")
    assert "lm: error: tiny was not reproduced: test perplexity" in said.err
    assert "instead of 2.00" in said.err
    assert record(done)["verdict"] == "FAIL"
    value = record(done)["measured"]
    published(monkeypatch, value / 1.0399)
    reproduce()
    published(monkeypatch, value / 1.0401)
    reproduce(code=8)
    assert runs() == [done]


def test_a_stopped_row_goes_on_exactly_by_the_same_command(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        reproduce("fresh=true", code=75)
    said = capsys.readouterr()
    assert "Continue with: lm reproduce tiny runtime.device=cpu" in said.err
    assert "fresh" not in said.err
    assert said.out == ""
    (stopped,) = set(runs()) - {done}
    reproduce()
    assert capsys.readouterr().out.startswith("PASS")
    assert len(runs()) == 2
    one, other = last_weights(done), last_weights(stopped)
    assert all(one[name].equal(other[name]) for name in one)


def test_a_recipe_with_a_budget_of_parameters_goes_on_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its runs keep the size that the budget came to, not the budget."""
    sized = (text for text in RECIPE if not text.startswith("model.hidden_size"))
    stage = Stage(overrides=(*sized, "model.parameters=2000"), published=1000.0)
    monkeypatch.setitem(registry.ROWS, "tiny", replace(TINY, stages=(stage,)))
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        reproduce(code=75)
    reproduce()
    (run,) = runs()
    assert 1500 < record(run)["training"]["parameters"] <= 2000
    forbid_training(monkeypatch)
    reproduce()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["PASS", "PASS"]


def test_a_modified_recipe_never_counts(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce("trainer.max_steps=12")
    said = capsys.readouterr().out
    assert said.startswith("modified  tiny: ")
    assert said.endswith("; modified recipe: trainer.max_steps: 20 → 12\n")
    (run,) = set(runs()) - {done}
    assert record(run)["verdict"] == "modified"
    assert record(run)["modified"] == ["trainer.max_steps: 20 → 12"]
    # Each has a run of its own.
    forbid_training(monkeypatch)
    reproduce("trainer.max_steps=12")
    reproduce()
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == ["modified", "PASS"]


def test_what_departs_from_a_recipe_is_told_by_value_and_not_by_what_was_typed() -> None:
    recipe = compose("train", RECIPE)

    def changes(*overrides: str) -> tuple[str, ...]:
        return recipe_changes(recipe, compose("train", [*RECIPE, *overrides]))

    assert changes("optim.lr=1e-2", "seed=7", "runtime.precision=fp32", "data.root='here'") == ()
    assert changes("model=gru") == ("model: lstm → gru",)
    assert changes("optim.lr=0.02", "trainer.max_epochs=null") == (
        "optim.lr: 0.01 → 0.02",
        "trainer.max_epochs: 3 → null",
    )


@pytest.mark.usefixtures("done")
def test_what_changes_no_number_stays_a_reproduction(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("elsewhere").mkdir()
    for name in SPLITS:
        Path(f"{name}.txt").rename(f"elsewhere/{name}.txt")
    Path("runs").rename("other")
    harmless = ["data.root=elsewhere", "runtime.threads=1", "runs=other", "trainer.log_every=7"]
    with monkeypatch.context() as patch:
        forbid_training(patch)
        reproduce(*harmless)
    reproduce(*harmless, "seed=2")  # another seed is another run, of the same recipe
    assert [record(run)["seed"] for run in runs("other")] == [1, 2]
    assert all(line.startswith("PASS") for line in capsys.readouterr().out.splitlines())


def test_other_data_are_refused_before_anything_is_written(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("valid.txt").write_text(TEXT.replace("cat", "cow"))
    before = sorted(Path().rglob("*"))
    reproduce(code=3)
    said = capsys.readouterr().err
    assert "the valid split of text is not the one that tiny was published on" in said
    assert "changed_data=true" in said
    assert sorted(Path().rglob("*")) == before
    # The run on the published data is not one on these, although its configuration is.
    reproduce("changed_data=true")
    assert "modified recipe: other data" in capsys.readouterr().out
    (changed,) = set(runs()) - {done}
    assert record(changed)["data"]["verified"] is False
    Path("valid.txt").write_text(SPLITS["valid"])
    forbid_training(monkeypatch)
    reproduce()
    assert capsys.readouterr().out.startswith("PASS")


def test_stages_start_from_the_best_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The second stage does not say the model's sizes: they come with the weights.
    tuning = ("optim.lr=1e-9", "optim.weight_decay=0", "model.dropout.output=0")
    second = (*(text for text in RECIPE if not text.startswith("model.")), *tuning)
    stages = (
        Stage(name="train", overrides=RECIPE, published=1000.0),
        Stage(name="finetune", overrides=second, published=3.0),
    )
    monkeypatch.setitem(registry.ROWS, "tiny", replace(TINY, stages=stages))
    with monkeypatch.context() as patch:
        stop_at(patch, 5, after=1)
        reproduce(code=75)
    stopped = runs()
    assert [run.parent.name for run in stopped] == ["finetune", "train"]
    reproduce(code=8)
    assert runs() == stopped
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("PASS  tiny train: ")
    assert lines[-1].startswith("FAIL  tiny finetune: ")
    tuned, trained = (record(run)["measured"] for run in stopped)
    assert tuned == pytest.approx(trained, rel=1e-5)


def test_a_mistake_in_a_later_stage_shows_before_the_first_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = (
        Stage(name="train", overrides=RECIPE),
        Stage(name="tune", overrides=(*RECIPE, "optim=sgd"), published=3.0),
    )
    monkeypatch.setitem(registry.ROWS, "tiny", replace(TINY, stages=stages))
    reproduce("optim.beta1=0.5", code=2)
    assert "unknown field optim.beta1 of the chosen optim" in capsys.readouterr().err
    assert runs() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "lm reproduce needs the name of a published result"),
        (["optim.lr=1"], "lm reproduce needs the name of a published result"),
        (["tinny"], "no published result named 'tinny'; nearest: tiny"),
        (["tiny", "optim.lrr=1"], "unknown field optim.lrr; nearest: optim.lr"),
        (["tiny", "freshh=true"], "unknown field freshh; nearest: fresh"),
        (["tiny", "again"], "expected <field>=<value>, got 'again'"),
        (["tiny", "optim.lr=nan"], "optim.lr must be a finite number > 0, got nan"),
        (["tiny", "resume=x"], "lm reproduce finds the run to continue by itself"),
        (["tiny", "trainer.test=false"], "leaves nothing to compare"),
        (["tiny", "-m", "seed=1,2"], "lm reproduce runs one row, once"),
        (["--list", "tiny"], "lm reproduce --list takes no 'tiny'"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["reproduce", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert sorted(Path().rglob("*")) == before


def test_a_record_folder_that_cannot_be_is_found_out_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reproduce("record=train.txt/kept", code=6)
    assert "Choose another folder with record=" in capsys.readouterr().err
    assert runs() == []


def test_a_damaged_run_is_passed_over(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for config in done.glob("checkpoints/step-*/config.yaml"):
        config.write_text("{")
    reproduce()
    assert f"passing over {done}" in capsys.readouterr().err
    assert len(runs()) == 2


def test_the_metric_is_taken_from_the_nats(done: Path) -> None:
    directory = RunDirectory(done)
    summary = json.loads((done / "summary.json").read_text())
    test = {"nats": 300.0, "num_tokens": 99, "num_bytes": 400, "num_words": 90, "num_streams": 1}

    def value(metric: Metric, **changes: object) -> float:
        summary["test"] = {**test, "lossy": None, **changes}
        (done / "summary.json").write_text(json.dumps(summary))
        row = replace(TINY, metric=metric, characters=200)
        return measured(row, directory)

    assert value(Metric.perplexity) == pytest.approx(math.exp(300 / 99))
    assert value(Metric.bits_per_byte) == pytest.approx(300 / math.log(2) / 400)
    assert value(Metric.bits_per_character) == pytest.approx(300 / math.log(2) / 200)
    assert math.isnan(value(Metric.bits_per_byte, lossy="3 unknown tokens"))
    assert value(Metric.perplexity, nats=None) == math.inf
    for bad in (math.nan, math.inf):
        assert Comparison(TINY, TINY.stages[0], 5.0, bad).verdict is Verdict.failed


def test_the_list_has_a_line_for_each_row_and_shows_the_newest_record(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["reproduce", "--list", *arguments]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [text.split()[0] for text in said[1 : len(registry.ROWS) + 1]] == list(registry.ROWS)
        return next(text for text in said if text.startswith("tiny "))

    assert "1000.00 ppl" in line("runs=nowhere")
    assert line("runs=nowhere").endswith("not run to the end")
    found = record(done)
    shown = f"PASS {found['measured']:.2f} ({found['relative_difference']:+.1%})"
    assert line().endswith(f"{shown}, {found['date'][:10]}, {found['machine']['cpu']}")
    # A newer record counts for more; a modified one never, and what is no record is passed over.
    newest = {**found, "verdict": "modified", "date": "2999-02-01T00:00:00+00:00"}
    newer = {**found, "verdict": "FAIL", "measured": None, "date": "2999-01-01T00:00:00+00:00"}
    for name, content in (("b", "{}"), ("c", "no JSON"), ("d", newer), ("e", newest)):
        text = content if isinstance(content, str) else json.dumps(content)
        (done / f"{name}.json").write_text(text)
    assert "FAIL not finite, 2999-01-01" in line()
