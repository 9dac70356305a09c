"""Time to perplexity: `ptb_fast` against `ptb_small` in textbook settings, on this machine.

Both train on the Penn Treebank, one after the other, alone on the machine. The textbook run uses
torch's own kernels in float32. Its time goes with the number of steps, so with fewer epochs than
six the rest is extrapolated, and the document says so.

    python scripts/time_to_perplexity.py --data <folder of the PTB> --output docs/ptb_fast.md
"""

import argparse
import datetime
import tempfile
from pathlib import Path

import torch
from benchmarks.hardware import machine
from benchmarks.runs import Run, train

# What ptb_small ends with on the validation split after six epochs (pytorch/examples, its seed).
GOAL = 119.3
TEXTBOOK_EPOCHS = 6
# Seconds are written when something is logged.
LOG = "trainer.log_every=1"


def document(textbook: Run, fast: list[Run], epochs: int) -> str:
    """The result as Markdown."""
    whole = textbook.seconds[textbook.steps] * TEXTBOOK_EPOCHS / epochs
    told = f"{epochs} of {TEXTBOOK_EPOCHS} epochs measured, the rest extrapolated"
    here = machine(torch.device("cpu"))
    lines = [
        "# `experiment=ptb_fast`: time to perplexity",
        "",
        "The recipe that reaches the validation perplexity with which `ptb_small` ends after six",
        f"epochs ({GOAL}) soonest on two CPU cores. `ptb_small` is the recipe of pytorch/examples;",
        "here it runs in textbook settings (`runtime.kernels=torch runtime.precision=fp32`).",
        "",
        "    python scripts/time_to_perplexity.py --data <folder of the PTB>"
        " --output docs/ptb_fast.md",
        "",
        f"{datetime.date.today()}: " + ", ".join(f"{k} {v}" for k, v in here.items()) + ".",
        "",
        "| run | steps | ms/step | training seconds | valid | test | share of that time |",
        "|---|--:|--:|--:|--:|--:|--:|",
        f"| textbook `ptb_small` | {textbook.steps * TEXTBOOK_EPOCHS // epochs} |"
        f" {1e3 * textbook.seconds[textbook.steps] / textbook.steps:.0f} | {whole:.0f}"
        f"{'' if epochs == TEXTBOOK_EPOCHS else f' ({told})'} | {GOAL} | 115.6 | 1 |",
    ]
    for seed, run in enumerate(fast, start=1):
        reached = run.seconds_to(GOAL)
        share = "not reached" if reached is None else f"{reached / whole:.3f}"
        spent = run.seconds[run.steps]
        lines.append(
            f"| `ptb_fast`, seed {seed} | {run.steps} | {1e3 * spent / run.steps:.0f} |"
            f" {spent:.0f} | {run.validations[-1][1]:.1f} | {run.test:.1f} | **{share}** |"
        )
    lines += [
        "",
        "Seconds are of training with the validations before; the goal is looked for at",
        "validations only. Validation uses the whole softmax over ten streams, the test number is",
        "exact (one stream). The textbook's perplexities are those of pytorch/examples with its",
        "own seed; ours of the same recipe are in [ptb_small.md](ptb_small.md).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train both, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the PTB splits")
    parser.add_argument("--epochs", type=int, default=TEXTBOOK_EPOCHS, help="of the textbook run")
    parser.add_argument("--seeds", type=int, default=1, help="runs of ptb_fast")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    data = f"data.root={arguments.data.resolve()}"
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        fast = [
            train(["experiment=ptb_fast", data, f"seed={seed}", LOG], f"fast{seed}", runs)
            for seed in range(1, arguments.seeds + 1)
        ]
        textbook = train(
            [
                "experiment=ptb_small", data, "runtime.kernels=torch", "runtime.precision=fp32",
                f"trainer.max_epochs={arguments.epochs}", "trainer.test=false", LOG,
            ],
            "textbook",
            runs,
        )  # fmt: skip
    text = document(textbook, fast, arguments.epochs)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
