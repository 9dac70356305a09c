"""A long run, watched from outside: whether memory, file handles and step time stay flat."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campaign.records import circumstances

STEPS = 40_000
EVERY_SECONDS = 1.0
POINTS = 300
# What counts as flat: the medians of the last quarter and of the second, compared.
MOST_GROWTH = 0.05
RECIPE = (
    "data=torch_source", "data.train_bytes=2000000", "tokenizer=byte", "model.embedding_size=64",
    "model.hidden_size=96", "model.dropout.output=0.2", "trainer.batch_size=8",
    "trainer.window=32", f"trainer.max_steps={STEPS}", "trainer.max_epochs=null",
    "trainer.valid_every=2000", "trainer.save_every=200", "trainer.log_every=50",
    "trainer.save_in_background=true", "trainer.test=false", "trainer.bar=false",
    "schedule=plateau", "optim=adam", "optim.lr=0.001", "runtime.threads=1", "name=soak",
)  # fmt: skip


def run(place: Path, folder: Path) -> None:
    """Train, look once a second, and keep the curves as JSON and as a picture."""
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "lm", "train", *RECIPE, f"runs={place}/runs"]
    with (place / "soak.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        samples = []
        while process.poll() is None:
            samples.append(_look(process.pid))
            time.sleep(EVERY_SECONDS)
    assert process.returncode == 0, (place / "soak.log").read_text()[-2000:]
    (metrics,) = place.glob("runs/soak/*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    result = summarise([sample for sample in samples if sample is not None], rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    picture(result, folder / "soak.png")


def _look(pid: int) -> tuple[float, int, int, int] | None:
    """Time, resident bytes, open files and threads of a process; None where it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (OSError, IndexError):
        return None
    return time.time(), pages * os.sysconf("SC_PAGE_SIZE"), handles, threads


def summarise(samples: Sequence[tuple[float, int, int, int]], rows: Sequence[Any]) -> Any:
    """The curves, thinned out, and how much each grew."""
    start = samples[0][0]
    logged = [row for row in rows if "perf/tokens_per_second" in row]
    step_seconds = [8 * 32 / row["perf/tokens_per_second"] for row in logged]
    curves: dict[str, list[float]] = {
        "seconds": [round(sample[0] - start, 1) for sample in samples],
        "resident_mib": [round(sample[1] / 2**20, 2) for sample in samples],
        "open_files": [sample[2] for sample in samples],
        "threads": [sample[3] for sample in samples],
        "step": [row["step"] for row in logged],
        "milliseconds_per_step": [round(1000 * value, 3) for value in step_seconds],
    }
    watched = ("resident_mib", "open_files", "threads", "milliseconds_per_step")
    growth = {name: round(growth_of(curves[name]), 4) for name in watched}
    last = rows[-1] if "perf/save_seconds" in rows[-1] else logged[-1]
    return {
        **circumstances(),
        "steps": max(row["step"] for row in rows),
        "run_seconds": logged[-1]["perf/seconds"],
        "save_seconds": last["perf/save_seconds"],
        "growth": growth,
        "flat": all(value <= MOST_GROWTH for value in growth.values()),
        "curves": {name: thinned(values) for name, values in curves.items()},
    }


def growth_of(values: Sequence[float]) -> float:
    """The median of the last quarter over that of the second, less one."""
    quarter = len(values) // 4
    early, late = values[quarter : 2 * quarter], values[-quarter:]
    return statistics.median(late) / statistics.median(early) - 1


def thinned(values: Sequence[float]) -> list[float]:
    """At most `POINTS` of the values, evenly spaced."""
    stride = -(-len(values) // POINTS)
    return list(values[::stride])


def picture(result: Any, path: Path) -> None:
    """Draw the curves."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    curves = result["curves"]
    panels = (
        ("resident memory [MiB]", "seconds", "resident_mib"),
        ("open files", "seconds", "open_files"),
        ("step time [ms]", "step", "milliseconds_per_step"),
    )
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for axis, (title, x, y) in zip(axes, panels, strict=True):
        count = min(len(curves[x]), len(curves[y]))
        axis.plot(curves[x][:count], curves[y][:count], linewidth=1)
        axis.set(title=title, xlabel="step" if x == "step" else "seconds")
        # Not up to the first point, which has the choice of kernels in it.
        axis.set_ylim(0, 1.15 * max(curves[y][1:count]))
        axis.grid(alpha=0.3)
    figure.suptitle(f"{result['steps']:,} steps in one process")
    figure.savefig(path, dpi=110)
