"""What a run has logged, read back from its `metrics.jsonl` as a stranger's."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.errors import CheckpointError
from lm.metrics import tags
from lm.runtime.untrusted import REMEDY, as_count, as_number, as_object, parse_json

# A line of ours has some hundred values.
_LONGEST_LINE = 1 << 16


def rows(path: Path, holding: str = "") -> Iterator[dict[str, Any]]:
    """The lines; one that a run under way has not finished is none.

    Args:
        holding: only those with this text in them, which saves parsing the others.

    Raises:
        CheckpointError: the file is missing, or a line is not what a run writes.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                name = f"{path}, line {number}"
                if line.endswith(b"\n"):
                    if holding.encode() not in line:
                        continue
                    yield as_object(parse_json(line, name), name)
                elif len(line) == _LONGEST_LINE:
                    raise CheckpointError(f"{name} is longer than a run's", REMEDY)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", REMEDY) from error


def value_of(row: dict[str, Any], tag: str) -> float | None:
    """A number of a line; None where there is none, or none that is finite."""
    value = row.get(tag)
    if value is None:  # null is what was not finite
        return None
    number = as_number(value, tag)
    return number if math.isfinite(number) else None


def gradient_norms(path: Path) -> list[tuple[int, float, float]]:
    """Step, and mean and largest norm of the gradient, of each log interval; none without a file.

    Raises:
        CheckpointError: a line is not what a run writes.
    """
    found = []
    for row in rows(path) if path.is_file() else ():
        mean = value_of(row, tags.GRADIENT_NORM)
        if mean is not None:
            largest = value_of(row, tags.LARGEST_GRADIENT_NORM)
            step = as_count(row.get("step"), "step")
            found.append((step, mean, mean if largest is None else largest))
    return found
