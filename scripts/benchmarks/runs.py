"""Training runs in processes of their own, and what came of them."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """A finished run: validations as (step, perplexity), seconds by step, and the test result."""

    validations: list[tuple[int, float]]
    seconds: dict[int, float]
    steps: int
    test: float | None

    @classmethod
    def read(cls, directory: Path) -> "Run":
        """From a run directory."""
        text = (directory / "metrics.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        return cls(
            validations=[
                (r["step"], r["valid/perplexity"]) for r in rows if "valid/perplexity" in r
            ],
            seconds={r["step"]: r["perf/seconds"] for r in rows if "perf/seconds" in r},
            steps=max(r["step"] for r in rows),
            test=next((r["test/perplexity"] for r in rows if "test/perplexity" in r), None),
        )

    def seconds_to(self, perplexity: float) -> float | None:
        """Training seconds until a validation is at or below `perplexity`; None if never."""
        for step, value in self.validations:
            if value <= perplexity:
                return self.seconds[step]
        return None


def train(overrides: list[str], name: str, runs: Path) -> Run:
    """Train in a process of its own."""
    command = [
        sys.executable, "-m", "lm", "train", *overrides, f"runs={runs}", f"name={name}",
        "trainer.sample_tokens=0",
    ]  # fmt: skip
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return Run.read(newest(runs / name))


def newest(folder: Path) -> Path:
    """The run directory made last under this name."""
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime)
