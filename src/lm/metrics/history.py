"""What a run has logged, read back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.metrics import tags
from lm.runtime.untrusted import as_count, as_number, contained, parse_json

# A line of ours has some hundred values.
_LONGEST_LINE = 1 << 16


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; none where there is no such file.

    Raises:
        CheckpointError: a line is not what a run writes.
    """
    if not path.is_file():
        return
    with contained(path), path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            found = parse_json(line, path)
            if not isinstance(found, dict):
                raise ValueError(f"{path} holds a line that is no object")
            yield found


def gradient_norms(path: Path) -> list[tuple[int, float, float]]:
    """Step, and mean and largest norm of the gradient, of each log interval."""
    found = []
    for line in lines(path):
        mean = line.get(tags.GRADIENT_NORM)
        if mean is not None:  # of steps that were all skipped it is null
            largest = line.get(tags.LARGEST_GRADIENT_NORM)
            largest = mean if largest is None else largest
            step = as_count(line.get("step"), "step")
            norms = as_number(mean, tags.GRADIENT_NORM), as_number(largest, tags.GRADIENT_NORM)
            found.append((step, *norms))
    return found
