"""What a trial's run directory says of it, while it is written and afterwards."""

import math
from pathlib import Path
from typing import Any

from lm.metrics.history import rows, value_of
from lm.runtime.files import read_json


def curve(directory: Path, tag: str) -> list[float]:
    """What was validated so far, in turn; infinite where it was not finite."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    found = [value_of(row, tag) for row in rows(path, holding=f'"{tag}"')]
    return [math.inf if value is None else value for value in found]


def size_of_curve(directory: Path) -> int:
    """Changes whenever the curve does."""
    path = directory / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def has_saved(directory: Path) -> bool:
    """Whether the run can be continued."""
    return any(directory.glob("checkpoints/step-*"))


def is_done(directory: Path) -> bool:
    """Whether the run came to its end."""
    return _summary(directory).get("status") == "done"


def seconds(directory: Path) -> float | None:
    """How long the run trained, all its continuations together."""
    found: float | None = _summary(directory).get("seconds")
    return found


def _summary(directory: Path) -> dict[str, Any]:
    try:
        return read_json(directory / "summary.json")
    except (OSError, ValueError):
        return {}
