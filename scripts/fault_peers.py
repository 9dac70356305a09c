"""The same faults done to pytorch/examples, to a minimal Lightning trainer, and to lm.

All train the same small LSTM on the same text with the same recipe, one thread each. What is done
and asked is in `scripts/peers`; nothing of theirs is changed, and nothing of theirs is kept here.

    git clone https://github.com/pytorch/examples EXAMPLES
    python -m venv PEERS && PEERS/bin/pip install torch==2.13.0 lightning==2.6.6
    python scripts/fault_peers.py --examples EXAMPLES --lightning PEERS/bin/python
"""

import argparse
import datetime
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.hardware import machine
from peers import disk, files, inputs, stopping, values  # noqa: F401  (they enter their rows)
from peers.examples import Examples
from peers.host import Host, hosting
from peers.lightning_runs import Lightning, LightningWithHooks
from peers.ours import Ours
from peers.plan import ROWS, carry_out
from peers.programs import Program
from peers.report import render

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "reliability" / "peers.json"
COMMAND = "python scripts/fault_peers.py --examples EXAMPLES --lightning PEERS/bin/python"
_WORDS = 200
_LINES = {"train": 2000, "valid": 200, "test": 200}

__all__ = ["main", "render"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--examples", type=Path, required=True, help="checkout of pytorch/examples")
    p.add_argument("--lightning", required=True, help="interpreter with torch and lightning")
    p.add_argument("--rows", help=f"names with commas between, of {', '.join(ROWS)}")
    p.add_argument("--programs", help="names with commas between; what is there stays")
    p.add_argument("--times", type=float, default=1.0, help="of the repetitions, such as 0.1")
    p.add_argument("--output", type=Path, default=OUTPUT, help="JSON to write, or to add to")
    return p


def write_text(folder: Path) -> None:
    """Three splits of a random text with the frequencies of words."""
    draws = random.Random(1)
    words = [f"w{rank}" for rank in range(_WORDS)]
    weights = [1 / (rank + 2.7) for rank in range(_WORDS)]
    folder.mkdir()
    for name, lines in _LINES.items():
        drawn = (draws.choices(words, weights, k=draws.randint(8, 22)) for _ in range(lines))
        (folder / f"{name}.txt").write_text("".join(f"{' '.join(line)}\n" for line in drawn))


def programs(asked: argparse.Namespace, folder: Path) -> list[Program]:
    """What is compared, each with an interpreter that is ready."""
    data = folder / "data"
    write_text(data)
    plain = Host(asked.lightning, ["torch"], [], folder / "examples-host")
    lightning = Host(asked.lightning, ["lightning.pytorch"], [], folder / "lightning-host")
    preloaded = ["lm.cli.launch", "lm.commands.train", "lm.commands.generate"]
    ours = Host(sys.executable, preloaded, [ROOT / "src"], folder / "lm-host")
    return [
        Examples(plain, data, asked.examples),
        Lightning(lightning, data),
        LightningWithHooks(lightning, data),
        Ours(ours, data),
    ]


def measure(asked: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Do the rows to the programs, and put what came of them into `found`."""
    compared = programs(asked, folder)
    with hosting(*(program.host for program in compared)):
        for program in compared:
            described = {"title": program.title, "about": program.about}
            versions = {**program.versions(), **program.host.versions("torch")}
            found["programs"][program.key] = {**described, "versions": versions}
        for key in asked.rows.split(",") if asked.rows else ROWS:
            entry = ROWS[key]
            kept = found["rows"].setdefault(key, {"cells": {}})
            kept.update(fault=entry.fault, asks=entry.asks)
            for program in compared:
                if asked.programs and program.key not in asked.programs.split(","):
                    continue
                started = time.perf_counter()
                place = folder / key / program.key
                times = max(1, round(entry.times * asked.times))
                kept["cells"][program.key] = result = carry_out(entry, program, place, times)
                spent = time.perf_counter() - started
                print(f"{key:14}{program.key:17}{spent:5.0f} s  {json.dumps(result)}", flush=True)
        found["rows"] = {key: found["rows"][key] for key in ROWS if key in found["rows"]}


def main() -> None:
    """Measure, write, and show the table."""
    asked = parser().parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"programs": {}, "rows": {}}
    if asked.output.exists():
        found = json.loads(asked.output.read_text(encoding="utf-8"))
    found["date"] = str(datetime.date.today())
    found["command"] = COMMAND
    found["hardware"] = machine(torch.device("cpu"))
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(asked, Path(folder), found)
        finally:  # a row that fails does not cost what was measured before
            asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(render(found))


if __name__ == "__main__":
    main()
