"""What safety costs: how long a save keeps training waiting, and the deterministic mode."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from campaign.records import circumstances

ROUNDS = 5
STEPS, SAVE_EVERY = 200, 20
VARIANTS = {
    "no saves": (f"trainer.save_every={2 * STEPS}",),
    "saves": (f"trainer.save_every={SAVE_EVERY}",),
    "saves in the background": (
        f"trainer.save_every={SAVE_EVERY}",
        "trainer.save_in_background=true",
    ),
    "deterministic": (f"trainer.save_every={2 * STEPS}", "runtime.deterministic=true"),
}
"""The default model on the default corpus, differently; timed in turn."""


def run(place: Path, folder: Path) -> None:
    """Train each variant in turn, several times, and keep medians and ranges."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for number in range(ROUNDS + 1):
        for name, overrides in VARIANTS.items():
            measured = _train(place / f"{name} {number}", overrides)
            if number:  # the first round compiles kernels and fills caches
                found[name].append(measured)
    result = {
        **circumstances(),
        "steps": STEPS,
        "save_every": SAVE_EVERY,
        "rounds": ROUNDS,
        "variants": {
            name: {key: _spread([run[key] for run in runs]) for key in runs[0]}
            for name, runs in found.items()
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "costs.json").write_text(json.dumps(result, indent=1) + "\n")


def _spread(values: list[float]) -> dict[str, float]:
    """The median of the rounds, the least and the most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _train(runs: Path, overrides: tuple[str, ...]) -> dict[str, float]:
    command = [
        sys.executable, "-m", "lm", "train", f"runs={runs}", f"trainer.max_steps={STEPS}",
        "trainer.max_epochs=null", f"trainer.valid_every={2 * STEPS}", "trainer.log_every=20",
        "trainer.sample_tokens=0", "trainer.test=false", "trainer.bar=false", *overrides,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    (run_directory,) = runs.glob("*/*/")
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()
    ]
    logged = [row for row in rows if "perf/seconds" in row]
    # Without the first interval, in which the kernels are chosen.
    seconds = logged[-1]["perf/seconds"] - logged[0]["perf/seconds"]
    saving = logged[-1]["perf/save_seconds"] - logged[0]["perf/save_seconds"]
    weights = next(run_directory.glob("checkpoints/step-*"))
    size = sum(path.stat().st_size for path in weights.iterdir())
    return {
        "milliseconds_per_step": 1000 * seconds / (logged[-1]["step"] - logged[0]["step"]),
        "stall_share": saving / seconds,
        "checkpoint_bytes": float(size),
    }
