"""Which run a path means: itself, or the newest run in the folder of an experiment.

runs/<name>/<date>_<time>_<id>/           a run; its name says when it began
runs/<name>/multirun_<date>_…/<job>/      several, of which none is the newest
runs/<name>/<job>                         not there, and means that job of the newest multirun
"""

import logging
import re
from pathlib import Path

from lm.errors import CheckpointError

# The time in a name: a clock of files changes when they are copied.
_BEGAN = re.compile(r"(multirun_)?(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_\w+")
_SHOWN = 3

log = logging.getLogger(__name__)


def run_meant(path: Path) -> Path:
    """`path` where it is a run (or nothing that we know), else the newest run in it.

    A newer run that has saved nothing yet is passed over. The log says what was taken, and what
    `path` means that is the number of a job.

    Raises:
        CheckpointError: the newest runs began in the same second, or are those of a multirun.
    """
    if not path.exists() and path.name.isdigit():
        return _job_meant(path)
    if (path / "checkpoints").is_dir() or not path.is_dir():
        return path
    stamped = {entry: _began(entry) for entry in path.glob("*") if not entry.is_symlink()}
    saved = {entry: began for entry, began in stamped.items() if began and _runs_of(entry)}
    if not saved:
        return _only_job(path)
    latest = max(saved.values())
    newest = sorted(entry for entry, began in saved.items() if began == latest)
    runs = [run for entry in newest for run in _runs_of(entry)]
    if len(runs) > 1 and len(newest) == 1:
        raise CheckpointError(
            f"{path}: the newest runs in it are those of a multirun",
            listed([path / run.name for run in runs]),
        )
    if len(runs) > 1:
        raise CheckpointError(
            f"{path}: the newest runs in it began in the same second", listed(runs)
        )
    for entry in sorted(entry for entry, began in stamped.items() if began > latest):
        log.warning("%s is passed over: it has no checkpoint", entry)
    log.info("%s: the newest run in it is %s", path, runs[0].relative_to(path))
    return runs[0]


def _job_meant(path: Path) -> Path:
    """The job of that number of the newest multirun beside it; else `path`."""
    multiruns = [entry for entry in path.parent.glob("multirun_*") if _began(entry)]
    newest = max((entry for entry in multiruns if _jobs(entry)), key=_began, default=path)
    job = newest / path.name
    if job not in _jobs(newest):
        return path
    log.info("%s: of the newest multirun, %s", path, job.relative_to(path.parent))
    return job


def _only_job(multirun: Path) -> Path:
    """The run in a multirun's folder, if there is just one; a folder of other things is itself.

    Raises:
        CheckpointError: there are several.
    """
    jobs = _jobs(multirun)
    if len(jobs) > 1:
        raise CheckpointError(f"{multirun} has {len(jobs)} runs, none the newest", listed(jobs))
    return jobs[0] if jobs else multirun


def _began(entry: Path) -> str:
    """The time in a run's name, in an order that is that of text; empty where there is none."""
    name = _BEGAN.fullmatch(entry.name)
    return name[2] if name else ""


def _runs_of(entry: Path) -> list[Path]:
    """The runs that an entry of an experiment's folder stands for, if they saved anything."""
    return _jobs(entry) if entry.name.startswith("multirun_") else [entry] * _has_saved(entry)


def _jobs(multirun: Path) -> list[Path]:
    # By number where they have one, so that 10 comes after 9.
    found = [entry for entry in multirun.glob("*") if not entry.is_symlink() and _has_saved(entry)]
    return sorted(found, key=lambda job: (len(job.name), job.name))


def _has_saved(run: Path) -> bool:
    return any(run.glob("checkpoints/step-*"))


def listed(runs: list[Path]) -> str:
    """A remedy that names the first of several runs."""
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return f"Give one of them: {', '.join(map(str, runs[:_SHOWN]))}{more}."
