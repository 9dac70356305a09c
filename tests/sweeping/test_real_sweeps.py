"""Sweeps that train: trials as processes, killed and continued; Hydra's launchers beside them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm

pytestmark = pytest.mark.slow

SMALL = [
    "data=markov", "tokenizer=word", "data.tokens=60000", "data.num_symbols=8",
    "model.hidden_size=32", "model.embedding_size=16", "schedule=constant",
    "trainer.batch_size=16", "trainer.window=32", "trainer.valid_every=30",
    "trainer.valid_streams=8", "trainer.log_every=30", "runtime.precision=fp32",
    "runtime.device=cpu", "runtime.threads=1",
    "trainer.sample_tokens=0",
]  # fmt: skip
SPACE = ["optim.lr=tag(log,interval(0.0001,0.1))", "model.dropout.output=interval(0,0.5)"]


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Lm:
    """`lm` as a process, with what it says in a file."""

    def __init__(self, *words: str) -> None:
        self._log = Path(f"{len(list(Path().glob('*.log')))}.log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lm", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def end(self, code: int = 0) -> str:
        """What it said, once it has ended as it should."""
        found = self.process.wait(timeout=300)
        said = self._log.read_text()
        assert found == code, said
        return said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def finished(*words: str, code: int = 0) -> str:
    return Lm(*words).end(code)


def sweep_words(name: str, trials: int, *more: str) -> list[str]:
    return ["sweep", *SMALL, *SPACE, "workers=2", f"trials={trials}", f"name={name}", *more]


def summaries(folder: Path) -> dict[str, str]:
    found = {path.parent.name: path for path in folder.glob("*/summary.json")}
    return {name: json.loads(path.read_text())["status"] for name, path in found.items()}


def wait_for(condition: str, folder: Path) -> None:
    limit = time.monotonic() + 120
    while not list(folder.glob(condition)):
        assert time.monotonic() < limit, condition
        time.sleep(0.05)


def test_eight_trials_with_two_workers_survive_a_kill_and_beat_the_default() -> None:
    words = sweep_words("eight", 8, "trainer.max_steps=300", "trainer.max_epochs=null")
    folder = Path("runs/eight/sweep")
    killed = Lm(*words)
    wait_for("2/checkpoints/step-*", folder)
    killed.kill()
    assert finished(*words).count("goes on") >= 1
    results = json.loads((folder / "results.json").read_text())
    states = [trial["state"] for trial in results["trials"]]
    assert len(states) == 8
    assert set(states) <= {"complete", "pruned"}
    trials = results["trials"]
    assert trials[0]["default"]
    best = trials[results["best"]]
    assert best["value"] < trials[0]["value"] - 0.02
    # Every trial is a run like any other, and the best one is one command away.
    assert set(summaries(folder).values()) <= {"done", "stopped"}
    said = finished("train", "-cd", str(folder), "experiment=best", "runtime.threads=1")
    assert f"loss {best['value']:.4f}" in said
    assert "test  loss" in said
    assert "8" in finished("compare", str(folder))
    # The same command has nothing left to do.
    assert "begins" not in finished(*words)


def test_a_stopped_sweep_saves_its_trials_and_goes_on_to_the_same_end() -> None:
    long = ["trainer.max_steps=1500", "trainer.max_epochs=null", "trainer.valid_every=300"]
    finished(*sweep_words("whole", 3, *long, "workers=1", "pruner=null"))
    words = sweep_words("parts", 3, *long, "workers=1", "pruner=null")
    stopped = Lm(*words)
    wait_for("1/checkpoints/step-*", Path("runs/parts/sweep"))
    stopped.process.send_signal(signal.SIGTERM)
    said = stopped.end(code=75)
    assert "stopped by SIGTERM: 1 trials are saved" in said
    assert summaries(Path("runs/parts/sweep"))["1"] == "stopped"
    finished(*words)
    whole, parts = (
        json.loads(Path(f"runs/{name}/sweep/results.json").read_text())["trials"]
        for name in ("whole", "parts")
    )
    assert [trial["params"] for trial in parts] == [trial["params"] for trial in whole]
    assert [trial["curve"] for trial in parts] == [trial["curve"] for trial in whole]


def test_a_trial_leaves_when_its_sweep_is_gone() -> None:
    killed = Lm(*sweep_words("orphans", 2, "trainer.max_steps=1000000", "trainer.max_epochs=null"))
    folder = Path("runs/orphans/sweep")
    for number in (0, 1):
        wait_for(f"{number}/checkpoints/step-*", folder)
    killed.kill()
    limit = time.monotonic() + 30
    while set(summaries(folder).values()) != {"stopped"}:
        assert time.monotonic() < limit
        time.sleep(0.05)


JOBS = ["train", "-m", *SMALL, "trainer.max_steps=60", "trainer.test=false"]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_launcher_runs_jobs_in_processes_of_their_own(launcher: str) -> None:
    finished(*JOBS, f"hydra/launcher={launcher}", "name=two", "seed=1,2")
    (folder,) = Path("runs/two").iterdir()
    assert summaries(folder) == {"0": "done", "1": "done"}
    losses = {
        json.loads((folder / n / "summary.json").read_text())["best_valid_loss"] for n in "01"
    }
    # The very numbers that one process gives in turn.
    finished(*JOBS, "name=turn", "seed=1,2")
    (turn,) = Path("runs/turn").iterdir()
    assert losses == {
        json.loads((turn / n / "summary.json").read_text())["best_valid_loss"] for n in "01"
    }


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_that_fails_elsewhere_is_named_and_the_others_finish(launcher: str) -> None:
    said = finished(
        *JOBS, f"hydra/launcher={launcher}", "name=three", "freeze=[],[nope],[embedding]", code=2
    )
    (folder,) = Path("runs/three").iterdir()
    assert summaries(folder) == {"0": "done", "2": "done"}
    (line,) = [line for line in said.splitlines() if line.startswith("lm: error: ")]
    assert line.startswith("lm: error: job 1 (")
    assert line.endswith("freeze: no parameter begins with 'nope'")
    assert "Traceback" not in said


def test_slurm_is_told_what_was_asked_for_and_a_preempted_job_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slurm.install(Path("bin"))
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}{os.pathsep}{os.environ['PATH']}")
    asked = ["partition=gpu", "timeout_min=60", "gpus_per_node=1"]
    jobs = [word.replace("trainer.max_steps=60", "trainer.max_steps=600") for word in JOBS]
    words = [*jobs, "trainer.max_epochs=null", "hydra/launcher=submitit_slurm"]
    words += [f"hydra.launcher.{word}" for word in asked]
    finished(*words, "name=cluster", "seed=1,2")
    script = Path("submitted.sh").read_text().splitlines()
    for line in ("array=0-1%2", "partition=gpu", "time=60", "gpus-per-node=1", "job-name=train"):
        assert f"#SBATCH --{line}" in script
    (folder,) = Path("runs/cluster").iterdir()
    assert summaries(folder) == {"0": "done", "1": "done"}
    said = (folder / "0/train.log").read_text()
    assert said.count("done: 600 steps done") == 1
    assert "stopped by SIGTERM" in Path("slurm.log").read_text()
    lines = (folder / "0/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == 600
