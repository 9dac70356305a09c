"""`lm reproduce` as a user calls it, on a row with a recipe of a few steps."""

import hashlib
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lm
from lm.cli import main
from lm.cli.launch import run_job
from lm.cli.report import report
from lm.cli.rows import with_recipe
from lm.config import compose, prepare
from lm.errors import LmError, Stopped
from lm.reproduction import registry
from lm.reproduction.row import Metric, Row, Stage
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
    monkeypatch.setenv("LM_CACHE", str(tmp_path.parent / "cache"))
    monkeypatch.setitem(registry.ROWS, "tiny", TINY)
    for name, text in SPLITS.items():
        Path(f"{name}.txt").write_text(text)


def reproduce(*overrides: str, code: int = 0) -> None:
    """What `lm reproduce tiny` does, without Hydra's own half a second before it."""
    arguments = with_recipe(["tiny", *QUIET, *overrides], needed=True)
    prepared = [prepare(argument) for argument in arguments]
    found = 0
    try:
        run_job("reproduce", compose("reproduce", prepared), prepared)
    except (LmError, Stopped) as error:
        found = report(error)
    assert found == code


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


def test_a_row_passes_and_leaves_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "tiny", *QUIET, "record=kept"]) == 0
    (run,) = runs()
    found = record(run)
    (kept,) = Path("kept").iterdir()
    assert json.loads(kept.read_text()) == found
    assert kept.name == f"tiny_{run.name}.json"
    # The numbers, from what `lm evaluate` says by itself.
    said = capsys.readouterr().out
    assert main(["evaluate", f"run={run}", "output=scores.json", *QUIET[:2]]) == 0
    score = json.loads(Path("scores.json").read_text())["test"]
    assert found["measured"] == pytest.approx(score["perplexity"], rel=1e-12)
    assert found["test"]["num_tokens"] == len(SPLITS["test"].split()) + 27 - 1
    assert found["relative_difference"] == pytest.approx(score["perplexity"] / 1000 - 1)
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
    assert str(Path.cwd()) not in kept.read_text()


def test_a_failure_is_an_exit_code_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, 2.0)
    reproduce(code=8)
    said = capsys.readouterr()
    assert said.out.startswith("FAIL  tiny: test perplexity ")
    assert "lm: error: tiny was not reproduced: test perplexity" in said.err
    assert "instead of 2.00" in said.err
    (run,) = runs()
    assert record(run)["verdict"] == "FAIL"
    # The tolerance is what decides, and the finished run is only compared again.
    forbid_training(monkeypatch)
    value = record(run)["measured"]
    published(monkeypatch, value / 1.0399)
    reproduce()
    published(monkeypatch, value / 1.0401)
    reproduce(code=8)
    assert runs() == [run]


def test_a_stopped_row_goes_on_exactly_by_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        reproduce("fresh=true", code=75)
    assert "Continue with: lm reproduce tiny runtime.device=cpu" in capsys.readouterr().err
    reproduce()
    (stopped,) = runs()
    assert "PASS" in capsys.readouterr().out
    reproduce("fresh=true")
    (whole,) = set(runs()) - {stopped}
    one, other = last_weights(whole), last_weights(stopped)
    assert all(one[name].equal(other[name]) for name in one)
    with monkeypatch.context() as patch:
        forbid_training(patch)
        reproduce()
    assert len(runs()) == 2


@pytest.mark.parametrize("override", ["trainer.max_steps=12", "model=gru"])
def test_a_modified_recipe_never_counts(
    override: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce(override)
    said = capsys.readouterr().out
    key = override.partition("=")[0]
    assert said.startswith("modified  tiny: ")
    assert f"modified recipe: {key}: " in said
    (run,) = runs()
    assert record(run)["verdict"] == "modified"
    assert len(record(run)["modified"]) == 1
    with monkeypatch.context() as patch:
        forbid_training(patch)
        reproduce(override)
    reproduce()  # the recipe itself has a run of its own
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS")
    assert len(runs()) == 2


def test_what_changes_no_number_stays_a_reproduction(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("elsewhere").mkdir()
    for name in SPLITS:
        Path(f"{name}.txt").rename(f"elsewhere/{name}.txt")
    harmless = ["data.root=elsewhere", "runtime.threads=1", "runs=other", "trainer.log_every=7"]
    reproduce(*harmless, "seed=2")
    assert record(runs("other")[0])["seed"] == 2
    with monkeypatch.context() as patch:
        forbid_training(patch)
        reproduce(*harmless, "seed=2", "trainer.keep=1")
    reproduce(*harmless, "seed=3")  # another seed is another run, of the same recipe
    assert len(runs("other")) == 2
    assert all(line.startswith("PASS") for line in capsys.readouterr().out.splitlines())


def test_other_data_are_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("valid.txt").write_text(TEXT.replace("cat", "cow"))
    before = sorted(Path().rglob("*"))
    reproduce(code=3)
    said = capsys.readouterr().err
    assert "the valid split of text is not the one that tiny was published on" in said
    assert "changed_data=true" in said
    assert sorted(Path().rglob("*")) == before
    reproduce("changed_data=true")
    assert "modified recipe: other data" in capsys.readouterr().out
    (changed,) = runs()
    assert record(changed)["data"]["verified"] is False
    # A run on other data is not this row's, although its configuration is.
    Path("valid.txt").write_text(SPLITS["valid"])
    reproduce()
    assert len(runs()) == 2
    assert capsys.readouterr().out.startswith("PASS")


def test_stages_start_from_the_best_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = (*RECIPE, "optim.lr=1e-9", "optim.weight_decay=0", "model.dropout.output=0")
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
    with monkeypatch.context() as patch:
        forbid_training(patch)
        reproduce(code=8)


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


def test_a_damaged_run_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce()
    (run,) = runs()
    for config in run.glob("checkpoints/step-*/config.yaml"):
        config.write_text("{")
    reproduce()
    assert f"passing over {run}" in capsys.readouterr().err
    assert len(runs()) == 2


def test_bits_are_counted_per_byte_or_per_published_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lossless = replace(TINY.stages[0], overrides=(*RECIPE, "tokenizer=byte"))
    row = replace(TINY, stages=(lossless,), metric=Metric.bits_per_byte)
    monkeypatch.setitem(registry.ROWS, "tiny", row)
    reproduce()
    (run,) = runs()
    nats = record(run)["test"]["nats"]
    size = len(SPLITS["test"])
    assert record(run)["measured"] == pytest.approx(nats / math.log(2) / (size - 1), rel=1e-12)
    row = replace(row, metric=Metric.bits_per_character, characters=size // 2)
    monkeypatch.setitem(registry.ROWS, "tiny", row)
    reproduce()
    assert record(run)["measured"] == pytest.approx(nats / math.log(2) / (size // 2), rel=1e-12)
    assert record(run)["metric"] == "test bits per character"


def test_the_list_has_a_line_for_each_row_and_shows_the_newest_record(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["reproduce", "--list", *arguments]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [text.split()[0] for text in said[1 : len(registry.ROWS) + 1]] == list(registry.ROWS)
        return next(text for text in said if text.startswith("tiny "))

    assert "1000.00 ppl" in line()
    assert line().endswith("not run to the end")
    reproduce("optim.lr=0.02")
    assert line().endswith("not run to the end")
    reproduce("runs=other")
    assert line().endswith("not run to the end")
    (run,) = runs("other")
    found = record(run)
    shown = f"PASS {found['measured']:.2f} ({found['relative_difference']:+.1%})"
    assert f"{shown}, {found['date'][:10]}, {found['machine']['cpu']}" in line("runs=other")
    # A newer record counts for more, wherever it is kept; what is no record is passed over.
    newer = {**found, "verdict": "FAIL", "measured": None, "date": "2999-01-01T00:00:00+00:00"}
    for name, content in (("b", "{}"), ("c", "no JSON"), ("d", json.dumps(newer))):
        (run / f"{name}.json").write_text(content)
    assert "FAIL not finite, 2999-01-01" in line("runs=other")
