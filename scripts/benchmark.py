"""Times our training step, and what is around it, against the textbook loop that most people run.

Both sides have the same model, initial weights, batches and data, and take turns in one process.
A ratio above 1 means that ours is better.

    python scripts/benchmark.py                               every row, a table
    python scripts/benchmark.py --rows ptb_2x650,generation   two rows
    python scripts/benchmark.py --rows ptb --json out.json    all rows that begin with ptb
    python scripts/benchmark.py --docs --merge gpu.json       writes docs/benchmarks.md
    python scripts/benchmark.py --smoke                       tiny sizes: does everything run?
"""

import argparse
import datetime
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.result import MismatchError, Outcome, Result
from benchmarks.rows import NAMES, TRAINING, selected

from lm.errors import ConfigError, LmError

if TYPE_CHECKING:
    from benchmarks.options import Options

_DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
# What decides the numbers, and so belongs to the command that is written beside them.
_MEASURING = ("rows", "device", "kernels", "threads", "steps", "seconds", "smoke")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="benchmark",
        description=__doc__,
        epilog=f"rows: {', '.join(NAMES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--rows", help="names with commas between, or how they begin; none: no row")
    p.add_argument("--json", nargs="?", const="-", metavar="FILE", help="results as JSON")
    p.add_argument("--docs", nargs="?", const=str(_DOCS), metavar="FILE", help="write the report")
    p.add_argument(
        "--merge", nargs="+", default=[], metavar="FILE", help="earlier --json files for --docs"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument(
        "--kernels", default="auto", choices=("auto", "fast", "torch", "reference"), help="of ours"
    )
    p.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    p.add_argument("--steps", type=int, default=30, help="measurements a row and side (30)")
    p.add_argument("--seconds", type=float, default=40.0, help="of measuring a row (40)")
    p.add_argument("--smoke", action="store_true", help="tiny sizes, one measurement each")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; the exit status."""
    p = parser()
    asked = p.parse_args(arguments)
    try:
        names = [] if asked.rows == "none" else selected(asked.rows)
        if asked.smoke and asked.docs:
            raise ValueError("--smoke times nothing that --docs could report")
        if asked.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {asked.steps}")
        merged = [r for path in asked.merge for r in report.read_results(Path(path))]
    except ValueError as error:
        return _say(error, ConfigError.code)
    try:
        _run(p, asked, names, merged)
    except LmError as error:
        return _say(error, error.code)
    except MismatchError as error:
        return _say(error, 1)
    return 0


def _say(error: Exception, code: int) -> int:
    print(f"benchmark: {error}", file=sys.stderr)
    return code


def _run(
    p: argparse.ArgumentParser, asked: argparse.Namespace, names: list[str], merged: list[Result]
) -> None:
    # Only now, so that help and mistakes do not wait for torch.
    from benchmarks.hardware import machine
    from benchmarks.options import Options

    smoke = asked.smoke
    options = Options(
        device=asked.device,
        kernels=asked.kernels,
        threads=asked.threads,
        steps=1 if smoke else asked.steps,
        seconds=0.0 if smoke else asked.seconds,
        smoke=smoke,
    )
    options.use_threads()
    here = machine(options.torch_device())
    command = _command(p, asked)
    known = {"machine": here, "date": str(datetime.date.today()), "command": command}
    people = sys.stderr if asked.json == "-" else sys.stdout
    outcomes: list[Outcome] = []
    print(report.heading(), file=people, flush=True)
    try:
        for name in names:
            for outcome in _measured(name, options, asked_for=asked.rows is not None):
                if isinstance(outcome, Result):
                    outcome.details.update(known)
                outcomes.append(outcome)
                print(report.line(outcome), file=people, flush=True)
            gc.collect()
    finally:  # a row that fails does not cost what was measured before
        if asked.json is not None:
            _write_json([o for o in outcomes if isinstance(o, Result)], asked.json)
    if asked.docs is not None:
        text = report.document([*merged, *outcomes], here, command)
        Path(asked.docs).write_text(text, encoding="utf-8")


def _measured(name: str, options: "Options", *, asked_for: bool) -> Iterator[Outcome]:
    from benchmarks import inference, text, training

    if name in TRAINING:
        return training.measure(name, options, asked_for=asked_for)
    others = {
        "evaluation": inference.evaluation,
        "generation": inference.generation,
        "preparation": text.preparation,
        "start_up": text.start_up,
    }
    return others[name](options)


def _command(p: argparse.ArgumentParser, asked: argparse.Namespace) -> str:
    """What repeats the measurement, without the paths of its outputs."""
    words = ["python scripts/benchmark.py"]
    for name in _MEASURING:
        value = getattr(asked, name)
        if value != p.get_default(name):
            words.append(f"--{name}" if value is True else f"--{name} {value}")
    return " ".join(words)


def _write_json(results: list[Result], target: str) -> None:
    text = json.dumps([result.to_json() for result in results], indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
