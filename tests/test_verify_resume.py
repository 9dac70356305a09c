"""`lm verify-resume` as a user calls it: what passes, what is found, and what is left behind."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from console import error, tree

from lm.cli import main
from lm.cli.jobs import run_job
from lm.cli.report import INTERRUPTED, report
from lm.commands import legs
from lm.commands.legs import Legs
from lm.config import Invocation, VerifyResumeConfig, compose, parse, prepare, registry
from lm.errors import LmError
from lm.models import CELLS
from lm.optim import OPTIMIZERS
from lm.training import snapshot
from lm.training.step import TrainStep

TEXT = "the cat sat on the mat; the dog sat on the log. a cat and a dog met the rat.\n" * 30
SMALL = [
    "data=text", "data.path=text.txt", "tokenizer=byte", "model.embedding_size=8",
    "model.hidden_size=12", "model.dropout.output=0.2", "trainer.batch_size=4",
    "trainer.window=16", "trainer.valid_streams=4", "runtime.device=cpu", "runtime.threads=1",
    "runtime.kernels=torch",
    "steps=5", "at=3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def small(*overrides: str) -> list[str]:
    """The small configuration, less what the overrides say otherwise."""
    keys = {override.partition("=")[0] for override in overrides}
    if "model.parameters" in keys:
        keys.add("model.hidden_size")
    return [*(item for item in SMALL if item.partition("=")[0] not in keys), *overrides]


def verify(*overrides: str, code: int = 0) -> None:
    """What `lm verify-resume` does, without Hydra's own half a second before it."""
    prepared = [prepare(override) for override in small(*overrides)]
    found = 0
    try:
        run_job("verify-resume", Invocation(compose("verify-resume", prepared), tuple(prepared)))
    except LmError as problem:
        found = report(problem)
    assert found == code


def kept() -> Path:
    (folder,) = Path("runs").iterdir()
    return folder


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Continue runs here, which saves the seconds that a process needs to begin."""

    def call(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert module == "lm"
        return subprocess.CompletedProcess([module], main(arguments), "", "")

    monkeypatch.setattr(legs, "_process", call)


def test_an_exact_resume_passes_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    before = tree()
    verify("runs=some/where", "trainer.save_every=1")
    said = capsys.readouterr()
    first, rest = said.out.split(" tensors, ")
    assert first.startswith("PASS  ")
    assert int(first.split()[1]) > 20
    assert rest == (
        "0.1 MB, and the progress are identical to the last bit after 3 + 2 steps"
        " (stop, new process)\n"
    )
    assert tree() == before


@pytest.mark.slow  # five processes
def test_a_killed_run_of_ones_own_experiment_passes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of its own, which are to be given everything that the command line had."""
    monkeypatch.setenv("TEXT_HERE", "text.txt")
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/odd.yaml").write_text(
        "# @package _global_\nmodel: {num_layers: 2}\nschedule: {warmup_steps: 100}\n"
    )
    Path("random.py").write_text("raise ImportError('found in the working directory')")
    before = tree()
    command = small("experiment=odd", "data.path=${oc.env:TEXT_HERE}", "interruption=kill")
    assert main(["verify-resume", "--config-dir=mine", *command]) == 0
    said = capsys.readouterr()
    assert "after 3 + 2 steps (kill, new process)" in said.out
    # A line for each leg: what a run says besides is not about this.
    assert [line[:10] for line in said.err.splitlines()] == [
        "the warm-u", "1 of 3: 5 ", "2 of 3: th", "3 of 3: co"
    ]  # fmt: skip
    assert tree() == before


def check_that_the_loss_is_found(said: str, errors: str) -> None:
    assert said.startswith("FAIL  weights ")
    assert "2 in recurrent state" in said
    assert "lm: error: resume is not exact: the run that was continued from step 3" in errors
    assert f"steps=4 at=3 shows where it begins. The runs are in {kept()}." in errors
    assert {path.name for path in kept().iterdir()} == {
        "straight", "straight_step-000000003", "interrupted"
    }  # fmt: skip


def test_what_is_lost_on_resume_is_found_and_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    monkeypatch.setattr(snapshot, "_recurrent_state", lambda run, progress, tensors: None)
    verify(code=8)
    check_that_the_loss_is_found(*capsys.readouterr())


@pytest.mark.slow
def test_what_is_lost_in_a_new_process_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sabotage.py").write_text(
        "from lm.training import snapshot\n"
        "snapshot._recurrent_state = lambda run, progress, tensors: None\n"
    )
    monkeypatch.setenv("LM_PLUGINS", "sabotage")
    # This process counts the plugin as loaded: it works in new ones alone.
    monkeypatch.setattr(registry, "_loaded", registry._loaded | {"sabotage"})
    verify(code=8)
    check_that_the_loss_is_found(*capsys.readouterr())


def test_training_that_does_not_repeat_itself_is_not_blamed_on_resume(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, done = TrainStep.__call__, [0]

    def drifting(self: TrainStep, *arguments: Any, **named: Any) -> object:
        done[0] += 1
        state = whole(self, *arguments, **named)
        with torch.no_grad():
            self.parameters["head.bias"][7] += 1e-3 * (done[0] == 6)  # the second run's first step
        return state

    monkeypatch.setattr(TrainStep, "__call__", drifting)
    verify(code=8)
    said = capsys.readouterr()
    assert said.out.startswith("FAIL  weights ")
    assert "training does not repeat itself on this machine" in said.err
    assert "runtime.deterministic=true" in said.err
    assert "3 of 3" not in said.err


COMPLAINT = "1 of 2\nlm: error: the data differ\n  Mend it.\n"


@pytest.mark.parametrize(
    ("interruption", "code", "complaint", "cause"),
    [
        ("stop", 4, COMPLAINT, "the interrupted run could not be continued: the data differ"),
        ("stop", -11, "", "run could not be continued: it said nothing (exit code -11)"),
        ("kill", 0, COMPLAINT, "to be killed after step 3 ended by itself: the data differ"),
    ],
    ids=["says why", "says nothing", "survives"],
)
def test_a_process_that_fails_is_quoted(
    interruption: str,
    code: int,
    complaint: str,
    cause: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([module], code, "", complaint)

    monkeypatch.setattr(legs, "_process", end)
    verify(f"interruption={interruption}", code=8)
    assert cause in error(capsys)
    assert kept().is_dir()


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["model=ngram"], 2, "model=ngram is counted, not trained by steps"),
        (["resume=runs/a"], 2, "resume=runs/a: lm verify-resume takes a configuration"),
        (["at=0"], 2, "at must be from 1 to 4 with steps=5, got 0"),
        (["at=5"], 2, "at must be from 1 to 4 with steps=5, got 5"),
        (["steps=1"], 2, "steps must be >= 2, got 1"),
        (["interruption=kil"], 2, "interruption must be one of stop, kill, got 'kil'"),
        (["stepz=3"], 2, "unknown field stepz; nearest: steps"),
        (["optim.lr=nan"], 2, "optim.lr must be a finite number > 0"),
        (["data.path=missing.txt"], 3, "missing.txt"),
        (["trainer.batch_size=5000"], 3, "tokens, but trainer.batch_size=5000"),
        (["init_from=nowhere"], 4, "nowhere"),
        (["runs=text.txt"], 6, "cannot create text.txt"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    overrides: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree()
    left_out = {"model=ngram": "model."}.get(overrides[0], "\0")
    given = [item for item in small(*overrides) if not item.startswith(left_out)]
    assert main(["verify-resume", *given]) == code
    assert message in error(capsys)
    assert tree() == before


@pytest.mark.parametrize(
    ("leg", "number"), [("straight", signal.SIGINT), ("continued", signal.SIGTERM)]
)
def test_a_signal_ends_it_and_leaves_nothing(
    leg: str, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree()

    def interrupt(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), number)
        raise AssertionError("it went on")

    if leg == "straight":
        monkeypatch.setattr(TrainStep, "__call__", interrupt)
    else:
        monkeypatch.setattr(subprocess, "run", interrupt)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert main(["verify-resume", *small()]) == INTERRUPTED
    assert "lm: interrupted" in capsys.readouterr().err
    assert tree() == before
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]


def planned(*overrides: str) -> Legs:
    prepared = [prepare(override) for override in overrides]
    composed = compose("verify-resume", prepared)
    config = parse(composed, VerifyResumeConfig)
    return Legs.of(config, Invocation(composed, tuple(prepared)), Path("folder"))


def test_the_legs_are_the_users_configuration_with_other_limits() -> None:
    given = ["optim.lr=0.25", "trainer.max_epochs=7", "trainer.patience=2", "trainer.keep=5"]
    planned_legs = planned(*given, "steps=8", "trainer.valid_every=3")
    composed, trainer = planned_legs.composed, planned_legs.composed.trainer
    assert "steps" not in composed
    assert (composed.optim.lr, trainer.valid_every, trainer.keep) == (0.25, 3, 5)
    assert (trainer.max_steps, trainer.max_epochs, trainer.patience) == (8, None, None)
    assert (trainer.save_every, trainer.test, trainer.sample_tokens) == (4, False, 0)
    assert planned_legs.overrides[:5] == (*given, "trainer.valid_every=3")
    assert "trainer.max_epochs=null" in planned_legs.overrides
    # What they were told is what they are.
    assert compose("train", planned_legs.overrides) == composed


SETTINGS = [
    *(f"model={cell}" for cell in CELLS),
    *(f"optim={name}" for name in OPTIMIZERS),
    "runtime.precision=bf16",
    "runtime.kernels=reference",
    "trainer.accumulate=3",
    "schedule=plateau trainer.valid_every=1",
    "trainer.averaging.kind=ema",
    "trainer.random_window.std=3",
    "trainer.clip.outlier.sigmas=1 trainer.clip.outlier.history=2",
    "model.dropout.weights=0.5 model.dropout.state=0.2 model.state_reset=0.1",
    "model.parameters=20k",
    "data.unit=line",
    "tokenizer=word at=1",
    "trainer.batch_size=100 steps=9 at=8",  # epochs of two windows
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_passes(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    verify(*setting.split(), "interruption=kill")
    assert capsys.readouterr().out.startswith("PASS  ")


@pytest.mark.slow
def test_fine_tuning_and_a_cell_of_ones_own_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [item for item in SMALL if item.partition("=")[0] not in ("steps", "at")]
    assert main(["train", *train, "trainer.max_steps=2"]) == 0
    (run,) = Path("runs/default").iterdir()
    sized = [item for item in SMALL if not item.startswith(("model.", "tokenizer"))]
    tuning = [*sized, f"init_from={run}", "freeze=[embedding]", "model.dropout.output=0.5"]
    for interruption in ("stop", "kill"):
        assert main(["verify-resume", *tuning, f"interruption={interruption}"]) == 0
    assert capsys.readouterr().out.count("PASS  ") == 2


@pytest.mark.slow
def test_each_job_of_a_multirun_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", "-m", *small("model=rnn,gru")]) == 0
    assert capsys.readouterr().out.count("PASS  ") == 2
