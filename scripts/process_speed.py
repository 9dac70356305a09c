"""What several processes bring on one machine: tokens per second of whole `lm train` runs.

The model is PTB's medium one (2 x 650, tied, 10,000 words) with 40 streams of 35 steps, on words
drawn at random. One process with all threads and several with their share of them take turns, round
by round; a run's rate is the median of its log points but the first, which holds the start.

    python scripts/process_speed.py --rounds 5
"""

import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.hardware import cpu_model

WORDS = 10_000
MODEL = [
    "model=lstm", "model.num_layers=2", "model.hidden_size=650", "model.embedding_size=650",
    "model.tied=true", "model.dropout.embedding=0.5", "model.dropout.between=0.5",
    "model.dropout.output=0.5", "optim=sgd", "optim.lr=1", "trainer.batch_size=40",
    "trainer.window=35", "trainer.sample_tokens=0", "trainer.test=false", "trainer.bar=false",
]  # fmt: skip


def write_text(folder: Path) -> list[str]:
    """Words by Zipf's law, each at least once; how `lm train` is told of them."""
    draws = random.Random(1)
    names = [f"w{k}" for k in range(WORDS)]
    weights = [1 / (k + 2) for k in range(WORDS)]
    drawn = {"train": names + draws.choices(names, weights, k=300_000), "valid": names[:400]}
    draws.shuffle(drawn["train"])
    for split, words in drawn.items():
        lines = (" ".join(words[k : k + 20]) for k in range(0, len(words), 20))
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    places = {"train": "train", "valid": "valid", "test": "valid"}
    text = [f"data.{split}={folder / name}.txt" for split, name in places.items()]
    return ["data=text", "tokenizer=word", *text]


def rate(overrides: list[str], folder: Path, name: str) -> float:
    """Tokens per second of a run."""
    command = [sys.executable, "-m", "lm", "train", f"runs={folder}", f"name={name}", *overrides]
    subprocess.run(command, check=True, capture_output=True)
    (metrics,) = (folder / name).glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    rates: list[float] = [
        line["perf/tokens_per_second"] for line in lines if "perf/tokens_per_second" in line
    ]
    return statistics.median(rates[1:])


def sides(processes: int, cores: int) -> dict[str, list[str]]:
    """Overrides by what they are called."""
    share = max(1, cores // processes)
    several = [f"runtime.processes={processes}", f"runtime.threads={share}"]
    found = {}
    for precision in ("auto", "fp32"):
        own = [f"runtime.precision={precision}"]
        found[f"1 x {cores}, {precision}"] = [*own, f"runtime.threads={cores}"]
        found[f"{processes} x {share}, {precision}"] = [*own, *several]
        split = "runtime.split_vocabulary=true"
        found[f"{processes} x {share}, {precision}, words split"] = [*own, *several, split]
    return found


def measure(processes: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Rates by side, one of each round."""
    every = max(1, steps // 6)
    length = [f"trainer.max_steps={steps}", f"trainer.log_every={every}"]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        text = write_text(Path(place))
        for number in range(rounds):
            for name, own in sides(processes, cores()).items():
                run = f"{name.replace(' ', '').replace(',', '_')}_{number}"
                found.setdefault(name, []).append(
                    rate([*MODEL, *text, *length, *own], Path(place), run)
                )
                print(f"{name}: {found[name][-1]:,.0f} tokens/s", file=sys.stderr, flush=True)
    return found


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(found: dict[str, list[float]]) -> str:
    """Markdown; each precision's first side is what the others are compared with, in each round."""
    lines = ["| processes x threads | tokens/s | of one process |", "|---|--:|--:|"]
    base: list[float] = []
    for name, rates in found.items():
        base = rates if name.startswith("1 x") else base
        ratios = [own / one for own, one in zip(rates, base, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {statistics.median(ratios):.2f} |"
        )
    today = datetime.date.today().isoformat()
    lines.append(f"\n{cpu_model()}, {cores()} cores, {today}, {len(base)} rounds in turn.")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--output", type=Path, help="write the table to a file too")
    given = parser.parse_args()
    text = table(measure(given.processes, given.rounds, given.steps))
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
