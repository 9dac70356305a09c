"""What bf16 products cost in quality: the same runs in both precisions, on the Penn Treebank.

For each recipe and seed, validation perplexity after three epochs in fp32 and in bf16. Runs that
are finished in --runs are not repeated, so that the work can be spread.

    python scripts/bf16_quality.py --data <folder of the PTB> --output docs/bf16_quality.md
"""

import argparse
import datetime
import statistics
from pathlib import Path

import torch
from benchmarks.hardware import machine
from benchmarks.runs import Run, newest, train

RECIPES = {"ptb_small": "2x200", "ptb_medium": "2x650 tied"}
PRECISIONS = ("fp32", "bf16")
EPOCHS = 3


def outcome(
    recipe: str, precision: str, seed: int, runs: Path, data: Path | None
) -> list[float] | None:
    """Validation perplexity after each epoch; None if the run is not there and must not be made."""
    name = f"{recipe}-{precision}-{seed}"
    run: Run | None = None
    if (runs / name).exists():
        run = Run.read(newest(runs / name))
    if run is None or len(run.validations) < EPOCHS:
        if data is None:
            return None
        overrides = [
            f"experiment={recipe}", f"data.root={data.resolve()}", f"runtime.precision={precision}",
            f"seed={seed}", f"trainer.max_epochs={EPOCHS}", "trainer.test=false",
        ]  # fmt: skip
        run = train(overrides, name, runs)
    return [perplexity for _, perplexity in run.validations[:EPOCHS]]


def document(found: dict[tuple[str, str, int], list[float] | None], seeds: int) -> str:
    """The result as Markdown."""
    here = machine(torch.device("cpu"))
    lines = [
        "# bf16 against fp32: quality",
        "",
        "Validation perplexity on the Penn Treebank after three epochs; same seed, masks and",
        "batches, only `runtime.precision` differs. In bf16 the operands of products are bf16 in",
        "training; weights, state, sums, loss, updates and all of evaluation are float32.",
        "",
        "    python scripts/bf16_quality.py --data <folder of the PTB>"
        " --output docs/bf16_quality.md",
        "",
        f"{datetime.date.today()}: " + ", ".join(f"{k} {v}" for k, v in here.items()) + ".",
        "",
        "| model | seed | fp32, epochs 1, 2, 3 | bf16, epochs 1, 2, 3 | difference after 3 |",
        "|---|--:|--:|--:|--:|",
    ]
    for recipe, model in RECIPES.items():
        differences = []
        for seed in range(1, seeds + 1):
            exact, low = (found[recipe, precision, seed] for precision in PRECISIONS)
            if exact is None or low is None:
                lines.append(f"| {model} (`{recipe}`) | {seed} | not measured | | |")
                continue
            differences.append(low[-1] / exact[-1] - 1)
            lines.append(
                f"| {model} (`{recipe}`) | {seed} | {', '.join(f'{p:.2f}' for p in exact)} |"
                f" {', '.join(f'{p:.2f}' for p in low)} | {differences[-1]:+.2%} |"
            )
        if differences:
            mean = statistics.mean(differences)
            lines.append(f"| **{model}** | **mean** | | | **{mean:+.2%}** |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, help="folder with the PTB splits; without it, only what is in --runs"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/bf16_quality"), help="kept here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    found = {
        (recipe, precision, seed): outcome(recipe, precision, seed, arguments.runs, arguments.data)
        for recipe in RECIPES
        for precision in PRECISIONS
        for seed in range(1, arguments.seeds + 1)
    }
    text = document(found, arguments.seeds)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
