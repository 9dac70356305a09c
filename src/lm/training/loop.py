"""The training loop: window → step → log → evaluate → anneal → save."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lm.data.streams import Window
from lm.errors import NumericError, Stopped
from lm.evaluation import evaluate
from lm.inspection.during_training import inspected_step, write_step
from lm.models.vocabulary_parallel import split_names
from lm.runtime.processes import ALONE
from lm.training.exchange import sums_of_bits
from lm.training.reporting import interval_scalars, sample
from lm.training.run import Run
from lm.training.snapshot import write

log = logging.getLogger(__name__)


class _AbandonedError(Exception):
    """A stop was requested while evaluating."""


@dataclass(slots=True)
class Trainer(Run):
    """The loop over a run.

    Attributes:
        apart: the processes are in the middle of a round of steps by themselves.
    """

    apart: bool = False
    clock: float = 0.0
    logged_at: float = 0.0
    logged_tokens: int = 0

    def fit(self) -> str:
        """Train until a limit is reached; the reason.

        Raises:
            Stopped: a signal asked for it; the run is saved at this very step.
            NumericError: too many non-finite steps in a row; the last checkpoint is good.
        """
        progress, config = self.progress, self.config
        self.clock = self.logged_at = time.perf_counter()
        self.logged_tokens = progress.tokens
        self.stop.share(self.processes)
        self.check_alike()
        if self.evaluate_if_due():  # a stop abandoned it; resuming repeats it
            self.save()
        while self.apart or (reason := self.limits.reached(progress)) is None:
            length = self.windows.length(progress.step)
            window = self.streams.window(progress.position, length)
            with self.inspected_if_due(window):
                self.train(window)
            if self.apart:
                continue
            self.agree()
            if progress.step % config.log_every == 0:
                self.log()
            if self.evaluate_if_due() or self.save_due():
                self.save()
            if self.stop.requested:
                self.save_and_stop()
            self.saver.check()
        if progress.step > progress.logged_step:
            self.log()  # the last interval, and the last look at whether the run diverged
        self.saver.wait()
        self.stop.share(ALONE)  # what is left is for the first process alone
        return reason

    def train(self, window: Window) -> None:
        """One update; the state goes on, and back to its initial value at an epoch's end."""
        progress = self.progress
        if self.averages.begin_if_due(self.epochs_done):
            self._say_averaging()
        self.state = self.train_step(
            window,
            self.state,
            step=progress.step,
            lr_multiplier=self.schedule.multiplier(progress.step)
            * self.windows.lr_factor(len(window.tokens)),
        )
        before = progress.tokens
        progress.advance(window, self.streams)
        if progress.position == 0:
            self.state = None
        self.console.advance(progress.tokens - before)
        self.end_round_if_due()
        self.tick()

    def end_round_if_due(self) -> None:
        """After steps that each process made by itself: all come together, or are still apart.

        At the end of an epoch and of the run they do so in any case.
        """
        step = self.progress.step - 1
        self.apart = self.local.apart(step)
        ends = self.progress.position == 0 or self.progress.step == self.limits.total_steps
        if self.apart and (ends or self.local.due(step)):
            self.come_together()
            self.apart = False

    def agree(self) -> None:
        """Let every process see the same signals and the same clock."""
        (self.progress.seconds,) = self.stop.agree(self.progress.seconds)

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = time.perf_counter()
        self.progress.seconds += now - self.clock
        self.clock = now

    def log(self) -> None:
        """Read the device once, write the scalars, and end a run that diverged."""
        progress, interval = self.progress, self.statistics.read()
        now = time.perf_counter()
        rate = (progress.tokens - self.logged_tokens) / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_tokens = now, progress.tokens
        progress.logged_step = progress.step
        values = interval_scalars(self, interval, rate)
        self.writer.scalars(progress.step, progress.tokens, values)
        self.console.report(progress, interval, rate)
        self.check_alike()
        if interval.worst_run >= self.config.max_bad_steps:
            raise NumericError(
                f"loss or gradient was not finite in {interval.worst_run} steps in a row"
                f" (step {progress.step})",
                "Lower optim.lr or set trainer.clip.norm; the last checkpoint is good: "
                f"resume={self.directory.path}",
            )

    def check_alike(self) -> None:
        """Make sure that all processes still have the same weights.

        Raises:
            ProcessError: a machine computes wrongly, or something that must not depends on it.
        """
        if not self.processes.alone:
            split = split_names(self.model)
            whole = [p for name, p in self.model.named_parameters() if name not in split]
            weights = sums_of_bits(whole)
            self.processes.check_same(weights, f"weights after step {self.progress.step}")

    @contextmanager
    def inspected_if_due(self, window: Window) -> Iterator[None]:
        """Look inside the model every `inspect_every` steps, as it reads the window of the step."""
        every = self.config.inspect_every
        due = every is not None and (self.progress.step + 1) % every == 0
        if not due or not self.processes.first:
            yield
            return
        with inspected_step(self.model, window, self.state) as found:
            yield
        write_step(self.writer, self.progress.step, self.progress.tokens, found)

    def evaluate_if_due(self) -> bool:
        """Validate at the end of an epoch or every `valid_every` steps, and at the run's end."""
        progress, every = self.progress, self.config.valid_every
        on_time = progress.position == 0 if every is None else progress.step % every == 0
        due = on_time or self.limits.reached(progress) is not None
        if progress.step == progress.evaluated_step or not due:
            return False
        began = time.perf_counter()
        self.evaluate()
        self.logged_at += time.perf_counter() - began  # tokens per second are those of training
        return True

    def evaluate(self) -> None:
        """Validate the weights or their averages, anneal, sample."""
        with self.averages.applied():
            loss = self._validate()
            if math.isfinite(loss):
                sample(self)
        if self.averages.observe(loss, self.epochs_done):
            self._say_averaging()

    def _validate(self) -> float:
        """The loss, written down and passed on to the schedule."""
        progress = self.progress
        try:
            score = evaluate(
                self.model,
                self.valid,
                num_streams=self.config.valid_streams,
                window=max(self.config.window, 128),
                unit=self.streams.unit,
                on_window=self._abandon_if_stopped,
                processes=self.processes,
            )
        except _AbandonedError:
            self.save_and_stop()
        self.writer.scalars(progress.step, progress.tokens, score.scalars("valid"))
        best = progress.observe(score.loss)
        self.schedule.observe(score.loss)
        mark = "  best so far" if best else ""
        log.info("valid  step %d  epoch %.2f  %s%s", progress.step, self.epochs_done,
                 score.describe(), mark)  # fmt: skip
        return score.loss

    def _say_averaging(self) -> None:
        log.info("averaging of weights begins after step %d", self.progress.step)

    def _abandon_if_stopped(self, num_targets: int) -> None:
        self.stop.agree()
        if self.stop.requested:
            raise _AbandonedError

    def leave_if_stopped(self, num_targets: int) -> None:
        """For the final evaluation: all is saved, and resuming evaluates again."""
        if self.stop.requested:
            raise Stopped(
                f"stopped by {self.stop.requested} during the final evaluation",
                f"Continue with: {self.continuation}",
            )

    def save_due(self) -> bool:
        """Whether a checkpoint is due between validations."""
        every = self.config.save_every
        return every is not None and self.progress.step % every == 0

    def save(self) -> None:
        """Write a checkpoint of this very step, which all processes have come to alike."""
        self.check_alike()
        self.tick()
        progress = self.progress
        best = progress.best_loss is not None and progress.best_step == progress.step
        write(self, best=best)

    def save_and_stop(self) -> None:
        """Save at a step boundary and leave."""
        self.save()
        self.saver.wait()
        raise Stopped(
            f"stopped by {self.stop.requested} and saved at step {self.progress.step}",
            f"Continue with: {self.continuation}",
        )
