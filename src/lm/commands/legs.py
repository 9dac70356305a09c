"""The runs that `lm verify-resume` compares: straight, interrupted, and continued."""

import gc
import json
import logging
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from lm.commands.boundary import KILL, SetAside, StopThere, saved
from lm.commands.train import train
from lm.config import (
    PATH_FIELDS,
    Interruption,
    Invocation,
    TrainConfig,
    VerifyResumeConfig,
    dump,
    invoking,
    key_of,
    narrowed,
    parse,
    portable_config,
)
from lm.config.fields import flatten, plain
from lm.errors import ResumeError, Stopped
from lm.optim.schedules import WarmupConfig
from lm.runtime.files import storage_errors
from lm.runtime.interpreter import module_command
from lm.training.signals import StopFlag

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Legs:
    """Trains one configuration, with and without an interruption.

    Attributes:
        composed: of `lm train`.
        overrides: what it was composed with.
        at: the step to interrupt at; every run saves there.
        runs: the user's folder of runs.
        folder: where these runs go.
    """

    composed: DictConfig
    overrides: tuple[str, ...]
    at: int
    runs: str
    folder: Path

    @classmethod
    def of(cls, config: VerifyResumeConfig, call: Invocation, folder: Path) -> "Legs":
        """The legs of the configuration that the command was called with."""
        own = {part.name for part in fields(config)} - {part.name for part in fields(TrainConfig)}
        composed = narrowed(call.config, TrainConfig)
        _settle_paths(composed)
        overrides = [text for text in call.overrides if key_of(text) not in own]
        for name, value in _changes(config).items():
            OmegaConf.update(composed, name, value)
            overrides.append(f"{name}={json.dumps(value)}")
        return cls(composed, tuple(overrides), config.interrupted_at, config.runs, folder)

    @property
    def straight(self) -> Path:
        """The run that nothing happens to."""
        return self.folder / "straight"

    @property
    def straight_at(self) -> Path:
        """Its checkpoint of the step at which the other one is interrupted."""
        return self.folder / f"straight_{saved(self.straight, self.at).name}"

    @property
    def interrupted(self) -> Path:
        """The other run."""
        return self.folder / "interrupted"

    @property
    def interrupted_at(self) -> Path:
        """Its checkpoint of that step."""
        return saved(self.interrupted, self.at)

    def train_straight(self) -> None:
        """Train without an interruption."""
        self._train(self.straight, SetAside(saved(self.straight, self.at), self.straight_at))

    def interrupt(self, how: Interruption) -> None:
        """Train, until it is interrupted."""
        if how is Interruption.kill:
            self._kill()
            return
        with suppress(Stopped):
            self._train(self.interrupted, StopThere(self.interrupted_at))
            raise AssertionError("the run was not stopped")

    def resume(self) -> None:
        """Continue the interrupted run as a user would.

        Raises:
            ResumeError: that fails.
        """
        words = ["train", f"resume={self.interrupted}", f"runs={self.runs}"]
        done = _process("lm", *words)
        if done.returncode:
            raise ResumeError(
                f"the interrupted run could not be continued: {_complaint(done)}",
                f"`{shlex.join(['lm', *words])}` shows it again.",
            )

    def _train(self, run: Path, flag: StopFlag) -> None:
        composed = self.composed.copy()
        try:
            with _quiet(), invoking(Invocation(composed, self.overrides, run)):
                train(parse(composed, TrainConfig), flag)
        finally:  # the processes to come need the memory
            gc.collect()
            torch.cuda.empty_cache()

    def _kill(self) -> None:
        """Train in a process that kills itself, `lm.commands.killed`."""
        config = self.folder / "killed.yaml"
        with storage_errors(f"write {config}"):
            config.write_text(dump(portable_config(self.composed)), encoding="utf-8")
        words = (str(config), str(self.interrupted), str(self.at), *self.overrides)
        done = _process("lm.commands.killed", *words)
        if abs(done.returncode) != KILL:
            raise ResumeError(
                f"the process to be killed after step {self.at} ended by itself:"
                f" {_complaint(done)}",
                "interruption=stop stops the run in this process instead.",
            )


def _changes(config: VerifyResumeConfig) -> dict[str, int | bool | None]:
    """What differs from the user's configuration: field → value."""
    changes: dict[str, int | bool | None] = {
        "trainer.max_steps": config.steps,
        **dict.fromkeys(("trainer.max_epochs", "trainer.max_tokens", "trainer.max_seconds")),
        "trainer.patience": None,
        "trainer.save_every": config.interrupted_at,
        # A process is killed a step later, which may have been saved as well.
        "trainer.keep": max(2, config.trainer.keep),
        "trainer.sample_tokens": 0,
        "trainer.test": False,
    }
    schedule = config.schedule
    if isinstance(schedule, WarmupConfig) and schedule.warmup_steps >= config.steps:
        changes["schedule.warmup_steps"] = config.interrupted_at
        log.info("the warm-up is shortened to fit: %d steps", config.interrupted_at)
    return changes


def _settle_paths(composed: DictConfig) -> None:
    """Put places in the stead of what they are read from, such as the environment.

    Checkpoints leave those out: a user who resumes has to name them again.
    """
    for name, value in flatten(plain(composed)).items():
        if name in PATH_FIELDS and "${" in str(value):
            place = OmegaConf.select(composed, name)
            if "${" not in place:
                OmegaConf.update(composed, name, place)


def _process(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module with a fresh interpreter, to its end."""
    return subprocess.run(
        module_command(module, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The line on standard error that says what went wrong."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("lm: error: ") for line in lines if line.startswith("lm: error: ")]
    said = (errors or lines or ["it said nothing"])[-1]
    return f"{said} (exit code {done.returncode})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Show warnings alone: what a run says besides is in its `train.log`."""
    handlers = {handler: handler.level for handler in logging.getLogger("lm").handlers}
    for handler in handlers:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler, level in handlers.items():
            handler.setLevel(level)
