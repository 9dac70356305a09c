"""Choose the default recipe: candidates with equal training time, ranked by bits per byte.

Each candidate's step is timed first (the fastest of several, which other load disturbs least);
its number of steps is what fits the budget. Then each is trained on the default corpus and ranked
by its best validation bits per byte. The result is a Markdown table with hardware and date.

    python scripts/choose_default.py --timings timings.json --output docs/default_recipe.md
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

COMMON = (
    "model=lstm", "model.embedding_size=256", "model.hidden_size=512", "model.tied=false",
    "model.init.embedding.kind=default", "tokenizer=bpe", "tokenizer.vocab_size=2048",
    "optim=adamw", "optim.lr=6e-3", "schedule=cosine", "schedule.warmup_steps=50",
    "schedule.final_fraction=0.02", "trainer.batch_size=16", "trainer.window=32",
    "trainer.clip.norm=0.25", "model.dropout.embedding=0", "model.dropout.output=0",
)  # fmt: skip
# The first line is the reference; each other one differs from it as it says.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "LSTM 512 untied, BPE 2048, AdamW 6e-3, 16 streams of 32": (),
    "BPE 1024": ("tokenizer.vocab_size=1024",),
    "BPE 4096": ("tokenizer.vocab_size=4096",),
    "bytes, window 128": ("tokenizer=byte", "~tokenizer.vocab_size", "trainer.window=128"),
    "LSTM 768": ("model.hidden_size=768",),
    "LSTM 2x384": ("model.hidden_size=384", "model.num_layers=2"),
    "GRU 512": ("model=gru",),
    "RNN 512, AdamW 1e-3": ("model=rnn", "optim.lr=1e-3"),
    "SGD 20": ("optim=sgd", "optim.lr=20"),
    "tied, embedding N(0, 0.5)": (
        "model.tied=true", "model.init.embedding.kind=normal", "model.init.embedding.scale=0.5"
    ),
    "AdamW 3e-3": ("optim.lr=3e-3",),
    "window 64": ("trainer.window=64",),
    "embedding U(0.1)": (
        "model.init.embedding.kind=uniform", "model.init.embedding.scale=0.1"
    ),
}  # fmt: skip
VALIDATIONS = 3


@dataclass(frozen=True)
class Result:
    """One candidate's outcome."""

    name: str
    overrides: list[str]
    step_ms: float
    steps: int
    bits_per_byte: float
    perplexity: float
    parameters: int


def merged(overrides: tuple[str, ...]) -> list[str]:
    """The common overrides with a candidate's in their place; `~key` drops one."""
    values = {item.partition("=")[0]: item for item in COMMON}
    for item in overrides:
        if item.startswith("~"):
            del values[item[1:]]
        else:
            values[item.partition("=")[0]] = item
    return list(values.values())


def run(overrides: list[str], runs: Path, name: str) -> Path:
    """Train in a process of its own; the run directory."""
    command = [sys.executable, "-m", "lm", "train", *overrides, f"runs={runs}", f"name={name}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return max((runs / name).iterdir(), key=lambda path: path.stat().st_mtime)


def rows(directory: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics."""
    text = (directory / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def step_seconds(overrides: list[str], runs: Path) -> float:
    """Seconds of a training step: the fastest of many, which other load disturbs least."""
    short = [
        "trainer.max_steps=24", "trainer.log_every=1", "trainer.test=false",
        "trainer.sample_tokens=0", "trainer.valid_streams=64", "schedule.warmup_steps=1",
    ]  # fmt: skip
    directory = run([o for o in overrides if "warmup" not in o] + short, runs, "timing")
    logged = [row for row in rows(directory) if "perf/tokens_per_second" in row]
    per_step = logged[-1]["tokens"] - logged[-2]["tokens"]
    return per_step / max(row["perf/tokens_per_second"] for row in logged[2:])


def timings(path: Path, names: list[str], runs: Path) -> dict[str, float]:
    """Seconds per step of the candidates, measured once and kept in a file."""
    if not path.exists():
        seconds = {name: step_seconds(merged(CANDIDATES[name]), runs) for name in names}
        path.write_text(json.dumps(seconds, indent=1), encoding="utf-8")
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return known


def measure(name: str, overrides: list[str], budget: float, seconds: float, runs: Path) -> Result:
    """Train a candidate for the budget."""
    steps = max(100, int(budget / seconds))
    limits = [
        f"trainer.max_steps={steps}", "trainer.max_epochs=null",
        f"trainer.valid_every={-(-steps // VALIDATIONS)}", "trainer.test=false",
        "trainer.sample_tokens=0",
    ]  # fmt: skip
    directory = run([*overrides, *limits], runs, "run")
    scores = [row for row in rows(directory) if "valid/bits_per_byte" in row]
    best = min(scores, key=lambda row: row["valid/bits_per_byte"])
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return Result(
        name, overrides, seconds * 1e3, steps, best["valid/bits_per_byte"],
        best["valid/perplexity"], summary["parameters"],
    )  # fmt: skip


def table(results: list[Result], budget: float) -> str:
    """Markdown, best first."""
    lines = [
        f"{budget:.0f} s of training each on {os.cpu_count()} {platform.machine()} cores,"
        f" torch {torch.__version__}, {datetime.date.today()}.",
        "",
        "| candidate | parameters | ms/step | steps | valid ppl/token | **valid bits/byte** |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for r in sorted(results, key=lambda result: result.bits_per_byte):
        lines.append(
            f"| {r.name} | {r.parameters / 1e6:.2f} M | {r.step_ms:.0f} | {r.steps} |"
            f" {r.perplexity:.2f} | {r.bits_per_byte:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time, train, rank, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=200.0, help="seconds of training each")
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), help="candidates by name")
    parser.add_argument("--timings", type=Path, required=True, help="JSON file, made if absent")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        seconds = timings(arguments.timings, arguments.only, runs)
        results = []
        for name in arguments.only:
            overrides = merged(CANDIDATES[name])
            results.append(measure(name, overrides, arguments.budget, seconds[name], runs))
            print(results[-1], flush=True)
    text = table(results, arguments.budget)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
