"""What each cell costs: tokens per second of a training step, beside the LSTM's of the same size.

Two layers, tied softmax over 10,000 words, 20 streams of 35 steps. `fast` is what `lm train` uses;
`loop` is the same cell run step by step by autograd, what one would write without kernels. All are
timed in turn within one process.

    python scripts/cell_speed.py --output docs/cells.md
"""

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lm.models import CELLS, RecurrentModel
from lm.models.base import State, detach
from lm.runtime.compute import Compute, Kernels, Precision
from lm.runtime.randomness import Noise

VOCABULARY, STREAMS, STEPS = 10_000, 20, 35
REFERENCE = "lstm"


def model_of(cell: str, size: int, kernels: Kernels, precision: Precision) -> RecurrentModel:
    """Two layers of a cell, tied."""
    config = CELLS[cell](embedding_size=size, hidden_size=size, num_layers=2, tied=True)
    model = config.build(VOCABULARY, seed=1)
    model.compute = Compute(precision=precision, kernels=kernels)
    return model


def step_of(model: RecurrentModel) -> Callable[[], None]:
    """One forward and backward pass over a window, the state carried."""
    draws = torch.Generator().manual_seed(1)
    block = torch.randint(VOCABULARY, (STEPS + 1, STREAMS), generator=draws)
    state: list[State | None] = [None]

    def step() -> None:
        model.zero_grad()
        output = model(block[:-1], block[1:], state[0], noise=Noise(1, 0, STREAMS))
        output.objective.backward()
        state[0] = detach(output.state)

    return step


def measure(size: int, rounds: int, precision: Precision) -> dict[tuple[str, str], float]:
    """Median tokens per second by cell and way, every round one step of each."""
    ways = {"fast": Kernels.auto, "loop": Kernels.reference}
    steps = {
        (cell, way): step_of(model_of(cell, size, kernels, precision))
        for cell in CELLS
        for way, kernels in ways.items()
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for number in range(rounds + 2):
        for key, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= 2:  # kernels are measured and caches filled before
                seconds[key].append(time.perf_counter() - started)
    return {key: STEPS * STREAMS / statistics.median(values) for key, values in seconds.items()}


def table(size: int, rates: dict[tuple[str, str], float]) -> list[str]:
    """A Markdown table of one size."""
    lines = [
        f"## 2x{size}", "",
        "| cell | tokens/s | of the LSTM's | against its loop |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    for cell in sorted(CELLS, key=lambda cell: -rates[cell, "fast"]):
        fast, loop = rates[cell, "fast"], rates[cell, "loop"]
        share = fast / rates[REFERENCE, "fast"]
        lines.append(f"| `{cell}` | {fast:,.0f} | {share:.2f} | {fast / loop:.1f} times |")
    return [*lines, ""]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("docs/cells.md"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 650])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    given = parser.parse_args()
    about = __doc__.partition("\n\n")[2].rpartition("\n\n")[0] if __doc__ else ""
    lines = [
        "# What each cell costs", "", about, "",
        f"By `scripts/cell_speed.py`, {datetime.date.today()}, torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores, products in "
        f"{given.precision}, forward and backward pass.", "",
    ]  # fmt: skip
    for size in given.sizes:
        lines += table(size, measure(size, given.rounds, Precision[given.precision]))
    given.output.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
