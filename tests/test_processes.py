"""What only real processes show: a killed run, start-up time, the installed wheel."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lm.cli import main

ROOT = Path(__file__).parents[1]
TEXT = "the quick brown fox jumps over the lazy dog and the dog does not mind it at all .\n" * 300
SMALL = [
    "data=text", "data.path=text.txt", "tokenizer=byte", "model.embedding_size=16",
    "model.hidden_size=24", "trainer.batch_size=4", "trainer.window=16", "trainer.max_steps=100",
    "trainer.max_epochs=null", "trainer.valid_every=40", "trainer.save_every=7",
    "trainer.valid_streams=8", "trainer.sample_tokens=0", "trainer.test=false",
    "schedule=constant", "optim.lr=0.01", "runtime.threads=1",
]  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lm", *arguments]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def final_weights(run: Path) -> bytes:
    name = (run / "checkpoints" / "last").read_text()
    tensors = load_file(run / "checkpoints" / name / "model.safetensors")
    return b"".join(tensors[key].numpy().tobytes() for key in sorted(tensors))


@pytest.mark.slow  # row R2 of the fault campaign does it without starting Python each time
def test_a_run_killed_with_kill_9_resumes_to_the_same_weights(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    assert main(["train", *SMALL, "name=whole"]) == 0
    process = subprocess.Popen(
        command("train", *SMALL, "name=killed"), cwd=workplace, stderr=subprocess.DEVNULL
    )
    pause = random.Random(os.getpid())
    runs = workplace / "runs" / "killed"
    while not list(runs.glob("*/checkpoints/step-*/manifest.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    time.sleep(pause.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = runs.iterdir()
    assert main(["train", f"resume={killed}"]) == 0
    (whole,) = (workplace / "runs" / "whole").iterdir()
    assert final_weights(killed) == final_weights(whole)
    steps = [
        json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)


def test_help_answers_within_600_ms_without_torch() -> None:
    script = (
        "import sys; from lm.cli import main; code = main(['--help']);"
        "sys.exit(code or ('torch' in sys.modules) or ('hydra' in sys.modules))"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
        assert b"lm <verb>" in done.stdout
    assert min(seconds) < 0.6


@pytest.mark.slow
def test_the_wheel_installed_elsewhere_trains(workplace: Path) -> None:
    def run(*arguments: str, **extra: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=workplace, env={**os.environ, **extra},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout + done.stderr

    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(workplace), str(ROOT))
    (wheel,) = workplace.glob("*.whl")
    site = str(workplace / "site")
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, str(wheel))
    where = run("-c", "import lm; print(lm.__file__)", PYTHONPATH=site)
    assert where.startswith(site)
    composed = run("-m", "lm", "train", "--cfg", "job", PYTHONPATH=site)
    assert "hidden_size" in composed
    said = run("-m", "lm", "train", *SMALL, "name=wheel", PYTHONPATH=site)
    assert "done: 100 steps done" in said
    assert "LICENSE" in "".join(str(path) for path in Path(site).rglob("*"))
