"""Which directories are meant: a run's own, a folder with runs below it, or a pattern of either."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from lm.errors import CheckpointError

SUMMARY = "summary.json"
"""What every run directory has, from its first moment on."""
# runs/<name>/multirun_<id>/<job>, and two levels for a name with folders in it.
_DEEPEST = 5


def find_runs(places: Iterable[str]) -> list[Path]:
    """The run directories that are meant, each once, in the order of the places and of names.

    Raises:
        CheckpointError: a place is not there, or has no run in it.
    """
    found: dict[Path, Path] = {}
    for place in places:
        runs = [run for path in _expanded(place) for run in _runs_below(path, _DEEPEST)]
        if not runs:
            there = "no run in" if Path(place).exists() else "there is no"
            raise CheckpointError(
                f"{there} {place}",
                "Give run directories, a folder with runs such as runs/default, or a pattern in"
                " quotes.",
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _expanded(place: str) -> list[Path]:
    """The place itself, or what it matches as a pattern."""
    if Path(place).exists():
        return [Path(place)]
    return [Path(path) for path in sorted(glob.glob(place, recursive=True))]  # noqa: PTH207


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """The folder if it is a run's, else the runs in it; links are not followed down."""
    if (folder / SUMMARY).is_file():
        yield folder
    elif depth and folder.is_dir():
        for inner in sorted(folder.iterdir(), key=_by_number):
            if inner.is_dir() and not inner.is_symlink():
                yield from _runs_below(inner, depth - 1)


def _by_number(path: Path) -> tuple[int, int, str]:
    """Job 10 of a multirun after job 9."""
    return (0, int(path.name), "") if path.name.isdecimal() else (1, 0, path.name)


def labels(paths: list[Path]) -> list[str]:
    """A short name for each: its path below the folder that all of them share."""
    if len(paths) == 1:
        return [paths[0].name or str(paths[0])]
    resolved = [path.resolve() for path in paths]
    depth = 0
    while len({path.parts[: depth + 1] for path in resolved}) == 1:
        depth += 1
    return ["/".join(path.parts[depth:]) or str(path) for path in resolved]
