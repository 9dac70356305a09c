"""What the rows of the campaign showed, kept as JSON."""

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from benchmarks.hardware import cpu_model

Record = dict[str, Any]
_SHOWN_FAILURES = 20


def run(keys: Sequence[str], place: Path, folder: Path, *, few: bool, seed: int) -> bool:
    """Carry out rows, all by default, and keep each result as soon as it is there.

    Returns:
        Whether all that was tried held.
    """
    from fault_plan import carry_out
    from rows import ROWS

    torch.set_num_threads(1)
    _commit()
    unknown = set(keys) - ROWS.keys()
    if unknown:
        sys.exit(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    held = True
    for key in keys or ROWS:
        entry = ROWS[key]
        times = (few and entry.few) or entry.full
        sys.stderr.write(f"{key} x {times}: {entry.fault}\n")
        (place / key).mkdir()
        try:
            record = _of(carry_out(entry, place / key, times, seed))
        except Exception:  # a row that cannot be done is a row that does not hold
            record = {"tried": 1, "held": 0, "failures": [traceback.format_exc()[-2000:]]}
        shutil.rmtree(place / key, ignore_errors=True)
        record |= {
            "fault": entry.fault,
            "criterion": entry.criterion,
            "figure": entry.figure.value,
            "seed": seed,
            **circumstances(),
        }
        sys.stderr.write(f"  {record['held']} of {record['tried']} hold\n")
        keep(folder / "rows.json", key, record)
        held = held and record["held"] == record["tried"]
    return held


def _of(tally: Any) -> Record:
    measured = {name for finding in tally.findings for name in finding.measures}
    return {
        "tried": len(tally.findings),
        "held": len(tally.findings) - len(tally.failures),
        "failures": [text[:500] for text in tally.failures[:_SHOWN_FAILURES]],
        "seconds": round(tally.seconds, 1),
        "measures": {name: quantiles(tally.measured(name)) for name in sorted(measured)},
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and the largest."""
    ordered = sorted(values)
    rank = min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))
    return {
        "count": len(ordered),
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[rank], 3),
        "max": round(ordered[-1], 3),
    }


def circumstances() -> Record:
    """When, with what and on what."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
    }


@cache
def _commit() -> str:
    """At the first call: what is committed while rows are under way is not what they ran."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def keep(path: Path, key: str, record: Record) -> None:
    """Put a record into a file of records, in the place of an earlier one.

    Two campaigns may run side by side, each with some of the rows.
    """
    from lm.runtime.lock import exclusive

    with exclusive(path):
        content = {**load(path), key: record}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Record]:
    """The records of a file, none where there is no file."""
    if not path.exists():
        return {}
    content: dict[str, Record] = json.loads(path.read_text(encoding="utf-8"))
    return content
