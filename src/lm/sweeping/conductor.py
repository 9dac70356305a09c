"""The trials of a study side by side: begun, followed, ended early, taken up again."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lm.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    LmError,
    NumericError,
    OutOfMemoryError,
    Stopped,
    StorageError,
)
from lm.runtime.ownership import living_owner
from lm.sweeping.directory import curve, has_saved, is_done, seconds, size_of_curve
from lm.sweeping.process import Order, Process
from lm.sweeping.space import Value, described
from lm.sweeping.study import Study, Trial

POLL_SECONDS = 0.2
# A trial that was stopped: saved, or by SIGTERM before it could listen.
_STOPPED = (Stopped.code, -15, 143)
_KINDS = {
    kind.code: kind
    for kind in (ConfigError, DataError, CheckpointError, NumericError, StorageError,
                 OutOfMemoryError)
}  # fmt: skip
# What fails with nothing changed for such a reason fails whatever is changed.
_HOPELESS = (ConfigError.code, DataError.code, CheckpointError.code, StorageError.code)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Running:
    """A trial and its process.

    Attributes:
        size: of its metrics when they were last read.
        pruned: it was asked to end, since others are better.
    """

    trial: Trial
    process: Process
    order: Order
    size: int = 0
    pruned: bool = False


@dataclass(slots=True)
class Conductor:
    """Brings a study to its number of trials.

    Attributes:
        folder: of the sweep; a trial's run is in the folder of its number.
        start: begins a process.
        overrides_of: the overrides of `lm train` for a choice of parameters, and for a run to
            continue.
        names: of the parameters.
        default: their values when nothing is changed; empty if the space does not hold them.
        tag: of the metric that is minimised, as in `metrics.jsonl`.
        trials: of the whole study, those done before included.
        seconds: after which no further trial begins.
        workers: processes side by side.
        requested: the signal that asks the sweep to stop, if one does.
        changed: called whenever a trial is done.
        left: trials that were running when this sweep was last interrupted.
        set_aside: how many were stopped before their end, and are saved.
        failure: of the first trial that failed.
    """

    study: Study
    folder: Path
    start: Callable[[Order], Process]
    overrides_of: Callable[[Mapping[str, Value], Path | None], list[str]]
    names: Sequence[str]
    default: Mapping[str, Value]
    tag: str
    trials: int
    seconds: float | None = None
    workers: int = 1
    requested: Callable[[], str | None] = lambda: None
    changed: Callable[[], None] = lambda: None
    running: list[Running] = field(default_factory=list)
    left: list[Trial] = field(default_factory=list)
    set_aside: int = 0
    failure: LmError | None = None
    _began: float = field(default_factory=time.monotonic)

    def conduct(self) -> None:
        """Run trials until there are enough.

        Raises:
            Stopped: a signal asked for it; what was running is saved and taken up by the next call.
            LmError: the default configuration cannot be trained.
        """
        self.left = self.study.left_running()
        try:
            self._loop()
        except KeyboardInterrupt:  # the second signal
            for run in self.running:
                run.process.kill()
            raise
        except BaseException:
            self._stop_all()
            while any(run.process.poll() is None for run in self.running):
                time.sleep(POLL_SECONDS)
            raise
        if self.set_aside:
            reason = self.requested() or "a signal to it"
            raise Stopped(
                f"stopped by {reason}: {self.set_aside} trials are saved as far as they came",
                "The same command goes on with them.",
            )

    def _loop(self) -> None:
        while True:
            if self.requested():
                self._stop_all()
            else:
                self._fill()
            if not self.running and not self._waiting():
                return
            time.sleep(POLL_SECONDS)
            for run in list(self.running):
                self._look(run)

    def _waiting(self) -> bool:
        """Trials of a sweep that died wait for their processes, which are saving, to end."""
        return bool(self.left) and not self.requested()

    def _stop_all(self) -> None:
        for run in self.running:
            run.process.stop()

    def _fill(self) -> None:
        """Begin trials while there is room."""
        while len(self.running) < self.workers:
            free = (t for t in self.left if living_owner(self._place(t) / "lock") is None)
            trial = next(free, None)
            if trial is not None:
                self.left.remove(trial)
            elif not self._may_propose():
                return
            else:
                known = self.study.records()
                trial = self.study.propose(None if known else self.default)
            self._begin(trial)

    def _may_propose(self) -> bool:
        late = self.seconds is not None and time.monotonic() - self._began > self.seconds
        return not late and len(self.study.records()) < self.trials

    def _place(self, trial: Trial) -> Path:
        return self.folder / str(trial.number)

    def _begin(self, trial: Trial) -> None:
        """Start the trial's process, unless its result is there already."""
        directory = self._place(trial)
        if is_done(directory):  # the sweep died before it was told
            self._finish(trial, directory)
            return
        if self._take_twin(trial):
            return
        saved = has_saved(directory)
        if not saved and directory.exists():
            shutil.rmtree(directory)
        overrides = self.overrides_of(trial.params, directory if saved else None)
        taken = {run.order.place for run in self.running}
        place = next(k for k in range(self.workers) if k not in taken)
        order = Order(directory, overrides, self.names, place)
        self.running.append(Running(trial, self.start(order), order))
        verb = "goes on" if saved else "begins"
        log.info("trial %d %s: %s", trial.number, verb, described(trial.params))

    def _take_twin(self, trial: Trial) -> bool:
        """The result of a trial with the same values, since training repeats itself."""
        for record in self.study.records():
            if record.state == "complete" and trial.params and record.params == trial.params:
                assert record.value is not None
                self.study.complete(trial, record.value, same_as=record.number)
                log.info("trial %d is trial %d again", trial.number, record.number)
                self.changed()
                return True
        return False

    def _look(self, run: Running) -> None:
        """Pass on what was validated; take note of the end."""
        code = run.process.poll()  # before the curve is read, so that nothing is missed
        size = size_of_curve(run.order.directory)
        if size != run.size:
            run.size = size
            behind = self.study.report(run.trial, curve(run.order.directory, self.tag))
            # The default is what the others are held against, and goes to its end.
            if behind and code is None and not run.pruned and run.trial.number:
                run.pruned = True
                run.process.stop()
        if code is not None:
            self.running.remove(run)
            self._end(run, code)

    def _end(self, run: Running, code: int) -> None:
        trial, directory = run.trial, run.order.directory
        if code == 0:
            self._finish(trial, directory)
        elif code not in _STOPPED:
            self._fail(trial, code, run.process.complaint())
        elif run.pruned:
            self.study.prune(trial, seconds=seconds(directory))
            log.info("trial %d is pruned after %d validations", trial.number, trial.reported)
            self.changed()
        else:
            self.set_aside += 1

    def _finish(self, trial: Trial, directory: Path) -> None:
        values = curve(directory, self.tag)
        best = min(values, default=math.inf)
        if not math.isfinite(best):
            self._fail(trial, NumericError.code, f"there is no finite {self.tag}")
            return
        self.study.report(trial, values)
        self.study.complete(trial, best, seconds=seconds(directory))
        log.info("trial %d: %s %.4f", trial.number, self.tag, best)
        self.changed()

    def _fail(self, trial: Trial, code: int, cause: str) -> None:
        """Note the failure; the others go on, unless there is no hope for them.

        Raises:
            LmError: nothing was changed in this trial, and still it cannot be trained.
        """
        kind = _KINDS.get(code, LmError)
        if code in _HOPELESS and trial.number == 0:
            raise kind(cause, "Once that is mended, the same command goes on.")
        self.study.fail(trial, cause)
        self.changed()
        if self.failure is None or cause not in self.failure.cause:
            log.warning("trial %d failed: %s", trial.number, cause)
        self.failure = self.failure or kind(
            f"trial {trial.number}: {cause}", "No trial came to its end."
        )
