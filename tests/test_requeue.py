"""A job that Slurm preempts and starts again goes on with the run that it began."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lm.cli.jobs import run_job
from lm.config import Invocation, compose, prepare

TEXT = "the quick brown fox jumps over the lazy dog and the dog does not mind it at all .\n" * 60
SMALL = [
    "data=text", "data.path=text.txt", "tokenizer=byte", "model.embedding_size=8",
    "model.hidden_size=8", "trainer.batch_size=4", "trainer.window=16", "trainer.log_every=2",
    "trainer.max_epochs=null", "trainer.sample_tokens=0", "trainer.test=false", "runtime.threads=1",
]  # fmt: skip


def run(job: Path, *overrides: str) -> None:
    """One start of a multirun's job, whose directory is settled."""
    prepared = [prepare(override) for override in overrides]
    call = Invocation(compose("train", prepared), tuple(prepared), job_directory=job)
    run_job("train", call)


def steps(job: Path) -> list[int]:
    lines = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "train/loss" in line]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return tmp_path / "multirun" / "0"


def test_with_a_checkpoint_it_resumes(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(job, *SMALL, "trainer.max_steps=4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    # What was given at first, not what is given now, is what the run is about.
    run(job, *SMALL, "trainer.max_steps=4")
    assert steps(job) == [2, 4]
    assert json.loads((job / "summary.json").read_bytes())["status"] == "done"


@pytest.mark.parametrize("left", ["nothing", "a directory", "logs"])
def test_without_a_checkpoint_it_begins_anew_in_place(
    job: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    if left != "nothing":
        job.mkdir(parents=True)
    if left == "logs":
        (job / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
        (job / "checkpoints").mkdir()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run(job, *SMALL, "trainer.max_steps=4")
    assert steps(job) == [2, 4]


def test_an_ngram_model_is_counted_again(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = [*SMALL[:3], "model=ngram", "trainer.test=false"]
    run(job, *counted)
    (model,) = job.glob("checkpoints/step-*/model.safetensors")
    before, lines = load_file(model), (job / "metrics.jsonl").read_text()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run(job, *counted)
    after = load_file(model)
    assert all(after[name].equal(before[name]) for name in before)
    assert len((job / "metrics.jsonl").read_text().splitlines()) == len(lines.splitlines())
