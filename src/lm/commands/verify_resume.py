"""`lm verify-resume`: whether an interrupted run comes, when continued, to the very same bits."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lm.checkpoint import Checkpoint, CheckpointFolder, read
from lm.commands.boundary import Leaving
from lm.commands.legs import Legs
from lm.config import VerifyResumeConfig, invocation
from lm.errors import ResumeError
from lm.run_directory import RunDirectory
from lm.runtime.files import storage_errors
from lm.training.difference import describe, differences

log = logging.getLogger(__name__)


def run(config: VerifyResumeConfig) -> None:
    """Train straight, train with an interruption, continue, and compare all that was saved.

    Raises:
        ResumeError: something differs, or the interrupted run could not be continued; the runs
            stay where they are.
    """
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    with Leaving().listening(), _workplace(Path(config.runs)) as folder:
        verify(config, Legs.of(config, call, folder))


def verify(config: VerifyResumeConfig, legs: Legs) -> None:
    """Do the legs in turn; the first difference ends it."""
    how, at, steps = config.interruption.value, config.interrupted_at, config.steps
    log.info("1 of 3: %d steps without an interruption", steps)
    legs.train_straight()
    log.info("2 of 3: the same again, to a %s after step %d", how, at)
    legs.interrupt(config.interruption)
    _compare(
        read(legs.straight_at),
        read(legs.interrupted_at),
        "training does not repeat itself on this machine: two runs of this configuration differ"
        f" at step {at}, before any interruption",
        "Set runtime.deterministic=true, or runtime.threads=1 and runtime.kernels=torch."
        f" The runs are in {legs.folder}.",
    )
    resumed = _newest(legs.interrupted).state["progress"]["step"]
    log.info("3 of 3: continued from step %d in a new process", resumed)
    legs.resume()
    straight, more = _newest(legs.straight), steps - resumed
    nearer = f"steps={resumed + 1} at={resumed} shows where it begins. " if more > 1 else ""
    _compare(
        straight,
        _newest(legs.interrupted),
        f"resume is not exact: the run that was continued from step {resumed} differs at step"
        f" {steps} from the one without an interruption",
        f"{nearer}The runs are in {legs.folder}.",
    )
    tensors = [*straight.model.values(), *straight.training.values()]
    sys.stdout.write(
        f"PASS  {len(tensors)} tensors, {sum(t.nbytes for t in tensors) / 1e6:.1f} MB, and the"
        f" progress are identical to the last bit after {resumed} + {more} steps"
        f" ({how}, new process)\n"
    )
    sys.stdout.flush()


def _compare(expected: Checkpoint, found: Checkpoint, cause: str, remedy: str) -> None:
    """Name the first difference.

    Raises:
        ResumeError: there is one.
    """
    differing = differences(expected, found)
    if differing:
        sys.stdout.write(f"FAIL  {describe(differing)}\n")
        sys.stdout.flush()
        raise ResumeError(cause, remedy)


def _newest(run: Path) -> Checkpoint:
    return CheckpointFolder(run / "checkpoints").newest_good()[1]


@contextmanager
def _workplace(runs: Path) -> Iterator[Path]:
    """A folder below `runs`, on the disk that real runs use; it stays if there is a finding."""
    RunDirectory.check_place(runs)
    created = [place for place in (runs, *runs.parents) if not place.exists()]
    with storage_errors(f"create a folder in {runs}"):
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="verify-resume_", dir=runs))
    try:
        yield folder
    except ResumeError:
        raise
    except BaseException:
        _remove(folder, created)
        raise
    else:
        _remove(folder, created)


def _remove(folder: Path, created: list[Path]) -> None:
    """Remove the folder, and those around it that were made for it."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another run has come there meanwhile
        for place in created:
            place.rmdir()
