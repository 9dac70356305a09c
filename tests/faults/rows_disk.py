"""Rows of disks that are full, fail or lose power: C4, C5, C6, C8."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from answers import cause_and_remedy
from checkpoints import KEEP, example, saved
from failing_disk import failing_disk
from fault_plan import Figure, Finding, Trial, log_lines, row
from power import crash_states
from small_run import outcome, resume, saved_step, whole_run, workplace

from lm.checkpoint import CheckpointFolder, verifies
from lm.errors import LmError, NumericError
from lm.runtime import files

KEPT = ["step-000000003", "step-000000002"]


@row(
    "C4",
    "the disk is full from the n-th change that a save makes, for every n",
    "exit 6 and two lines (0 where only an older one was to go); what was kept verifies; no debris",
    Figure.fault,
    few=1,
    full=2,
)
def full_at_each_change_of_a_save(trial: Trial) -> Iterator[Finding]:
    counted = saved(trial.folder / "counted", 1, 2).path
    changes = failing_disk().act("save_a_checkpoint", counted, 0)["changes"]
    for number in (errno.ENOSPC, errno.EIO)[: trial.times]:
        for change in range(1, changes + 1):
            folder = trial.folder / f"{number}-{change}"
            saved(folder, 1, 2, best=2)
            yield _failed_save(folder, change, number)


def _failed_save(folder: Path, change: int, number: int) -> Finding:
    found = failing_disk().act("save_a_checkpoint", folder, change, number)
    checkpoints = CheckpointFolder(folder)
    newest = checkpoints.newest_good()[0].name
    debris = [path.name for path in folder.glob(".*")]
    # The last changes come after the checkpoint is whole: then it may count. The very last takes
    # an older one away, which a full disk does not keep from happening.
    ended = _two_lines(found, 6) or (
        found["code"] == 0 and [p.name for p in checkpoints.newest_first()] == KEPT
    )
    ok = (
        ended
        and newest in ("step-000000002", "step-000000003")
        and _count_good(checkpoints) >= KEEP
        and not debris
    )
    what = f"errno {number} from change {change}: exit {found['code']}, {newest}, {debris}"
    return Finding(ok, f"{what}: {found['said'][-300:]}")


def _two_lines(found: dict[str, object], code: int) -> bool:
    return found["code"] == code and cause_and_remedy(str(found["said"])) is not None


@row(
    "C4b",
    "the disk is full from a random change of a whole run on",
    "exit 6 and two lines; once there is room the run goes on from its newest checkpoint, exactly",
    Figure.resume,
    few=1,
    full=50,
)
def full_during_a_run(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, _ = whole_run()
        changes = failing_disk().act("train", trial.place("counted"), 0)["changes"]
        for k in range(trial.times):
            place = trial.place(f"full-{k}")
            change = trial.draws.randint(1, changes)
            found = failing_disk().act("train", place, change)
            yield _failed_run(place, change, found, expected)


def _failed_run(place: Path, change: int, found: dict[str, object], expected: str) -> Finding:
    (run,) = [*place.glob("runs/full/*/"), None][:1]
    exact = _two_lines(found, 6)
    if exact and run is not None and saved_step(run) is not None:
        exact = resume(run).wait() == 0 and outcome(run) == expected
        exact = exact and not list((run / "checkpoints").glob(".*"))
    what = f"full from change {change} on: exit {found['code']}, {run}: {str(found['said'])[-600:]}"
    return Finding(exact, what)


@row(
    "C5",
    "the power goes at each system call of three saves and loses what was not synced",
    "a checkpoint that was saved before verifies, and is what was saved",
    Figure.fault,
    few=1,
    full=1,
)
def power_loss_at_each_call(trial: Trial) -> Iterator[Finding]:
    folder = trial.place("checkpoints")
    states = crash_states(folder, lambda: saved(folder, 1, 2, 3, 3, best=2))
    for k, (label, done, files_) in enumerate(states):
        place = trial.folder / str(k)
        _materialise(place, files_)
        checkpoints = CheckpointFolder(place)
        checkpoints.open_for_writing()
        step = _newest_step(checkpoints)
        yield Finding(step >= done, f"{label}, {done} saved: {step} verifies")
        shutil.rmtree(place)


def _materialise(place: Path, content: dict[str, bytes | None]) -> None:
    place.mkdir(exist_ok=True)
    for name, data in content.items():
        path = place / name
        if data is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _newest_step(checkpoints: CheckpointFolder) -> int:
    try:
        with log_lines():
            step = checkpoints.newest_good()[1].state["progress"]["step"]
    except LmError:
        return 0
    assert isinstance(step, int)
    return step


@row(
    "C6",
    "saves that fail at random, and checkpoints that are damaged meanwhile",
    f"a failed save takes none away; a good one leaves {KEEP} that verify, or one more than before",
    Figure.fault,
    few=5,
    full=200,
)
def retention_under_failures(trial: Trial) -> Iterator[Finding]:
    for k in range(trial.times):
        checkpoints = saved(trial.folder / str(k), 1, 2)
        for step in range(3, 12):
            what = trial.draws.choice(["fails", "not finite", "good", "good", "damage"])
            if what == "damage":
                victim = trial.draws.choice(checkpoints.newest_first())
                (victim / "state.json").write_text("{}")
            before = _count_good(checkpoints)
            with log_lines():
                _try_to_save(checkpoints, step, what)
            good = _count_good(checkpoints)
            least = before if what in ("fails", "not finite") else min(KEEP, before + 1)
            yield Finding(good >= least, f"{k}: step {step} {what}: {before}, then {good} verify")


def _count_good(checkpoints: CheckpointFolder) -> int:
    with log_lines():  # of those that do not verify
        return sum(map(verifies, checkpoints.newest_first()))


def _try_to_save(checkpoints: CheckpointFolder, step: int, what: str) -> None:
    checkpoint = example(step)
    whole = files.sync

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if what == "not finite":
        checkpoint.model["weight"][0] = float("nan")
    if what == "fails":
        files.sync = full
    try:
        checkpoints.save(step, checkpoint, best=False, keep=KEEP)
    except LmError:
        assert what in ("fails", "not finite")
    finally:
        files.sync = whole


@row(
    "C8",
    "a weight that is NaN or infinite when a checkpoint is due",
    "refused with exit 5; what was there is untouched",
    Figure.fault,
    few=6,
    full=200,
)
def weights_that_are_not_finite(trial: Trial) -> Iterator[Finding]:
    checkpoints = saved(trial.place("c"), 1, best=1)
    before = sorted(path.name for path in checkpoints.path.iterdir())
    for k in range(trial.times):
        value = trial.draws.choice([float("nan"), float("inf"), -float("inf")])
        dtype = trial.draws.choice([torch.float32, torch.bfloat16, torch.float64])
        weight = torch.zeros(trial.draws.randint(1, 5), trial.draws.randint(1, 50), dtype=dtype)
        weight.view(-1)[trial.draws.randrange(weight.numel())] = value
        checkpoint = example(2)
        checkpoint.model[f"w{k}"] = weight
        try:
            checkpoints.save(2, checkpoint, best=True, keep=1)
            refused = False
        except NumericError:
            refused = True
        after = sorted(path.name for path in checkpoints.path.iterdir())
        yield Finding(refused and after == before, f"{value} in {dtype}: {json.dumps(after)}")
