"""Records of reproductions: one JSON file for each, beside its run and wherever else it is kept."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lm.metrics.perplexity import Score
from lm.reproduction.row import Metric, Row
from lm.reproduction.verdict import Comparison
from lm.run_directory import RunDirectory
from lm.runtime.files import read_json, storage_errors, write_atomically

FORMAT = 1
BESIDE_RUN = "reproduction.json"


def measured(row: Row, directory: RunDirectory) -> float:
    """The row's metric of a finished run on its test split; NaN where it is not defined."""
    score = Score.from_json(read_json(directory.path / "summary.json")["test"])
    if row.metric is Metric.perplexity:
        return score.perplexity
    if row.metric is Metric.bits_per_byte:
        return math.nan if score.bits_per_byte is None else score.bits_per_byte
    assert row.characters is not None, f"{row.name} does not count its characters"
    return score.nats / math.log(2) / row.characters


def record(
    comparison: Comparison, directory: RunDirectory, *, seed: int, data: dict[str, Any]
) -> dict[str, Any]:
    """Everything that a reader needs to judge, and to repeat, one stage of a reproduction.

    Nothing in it names a place on this machine: records are made to be passed on.

    Args:
        data: the digests that were checked, and whether they are the registered ones.
    """
    path, row = directory.path, comparison.row
    summary = read_json(path / "summary.json")
    last = read_json(directory.checkpoints.find("last") / "state.json")
    finished = datetime.fromtimestamp((path / "summary.json").stat().st_mtime, UTC)
    return {
        "format": FORMAT,
        "row": row.name,
        "stage": comparison.stage.name,
        "system": row.system,
        "verdict": comparison.verdict.value,
        "metric": f"test {row.metric.value}",
        "published": comparison.published,
        "source": row.source,
        "note": row.note,
        "measured": _finite(comparison.measured),
        "relative_difference": _finite(comparison.difference),
        "tolerance": row.tolerance,
        "modified": list(comparison.changes),
        "test": summary["test"],
        "date": finished.isoformat(timespec="seconds"),
        "run": path.name,
        "seed": seed,
        "machine": _machine(path, last["machine"]),
        "training": _training(summary),
        "data": {**data, "tokens": last["data"]},
        "validation": list(_curve(path / "metrics.jsonl")),
    }


def keep(content: dict[str, Any], run: Path, folder: Path | None) -> list[Path]:
    """Write a record beside its run and, if asked, into a folder of records; where it is now.

    Raises:
        StorageError: one of them cannot be written.
    """
    places = [run / BESIDE_RUN]
    if folder is not None:
        name = "_".join(filter(None, (content["row"], content["stage"], content["run"])))
        places.append(folder / f"{name}.json")
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    for place in places:
        with storage_errors(f"write {place}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, text.encode())
    return places


def _machine(run: Path, last: dict[str, Any]) -> dict[str, Any]:
    """Where the run ended, and with which software it began."""
    facts = read_json(run / "environment.json")
    git = facts["git"]
    return {
        **last,
        **{name: facts[name] for name in ("cpu", "cpus", "python", "platform")},
        "lm": facts["versions"]["lm"],
        "git": git and {"commit": git["commit"], "dirty": bool(git["diff"])},
    }


def _training(summary: dict[str, Any]) -> dict[str, Any]:
    """Cost and course; the seconds include those of validation."""
    seconds, tokens = summary["seconds"], summary["tokens"]
    course = {name: summary[name] for name in ("steps", "best_step", "parameters")}
    rate = tokens / seconds if seconds else None
    return {"seconds": seconds, "tokens": tokens, "tokens_per_second": rate, **course}


def _curve(metrics: Path) -> Iterator[dict[str, Any]]:
    """Every validation, in nats and perplexity."""
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "valid/loss" in row:
            names = ("step", "tokens", "valid/loss", "valid/perplexity")
            yield {name: row[name] for name in names}


def _finite(value: float) -> float | None:
    """JSON has neither infinity nor NaN."""
    return value if math.isfinite(value) else None
