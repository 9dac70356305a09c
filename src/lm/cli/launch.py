"""Run a verb through Hydra: the only file that touches `@hydra.main`.

Hydra is run such that it neither prints errors nor swallows them: every job is composed and parsed
before Hydra creates anything, and what a job raises is kept until Hydra is done. A single job is
not composed again.
"""

import contextlib
import io
import math
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm import config
from lm.cli.flags import read_flags, runs_jobs
from lm.cli.jobs import Leader, follow, run_job
from lm.cli.report import named, report
from lm.errors import ConfigError, Stopped
from lm.runtime.files import storage_errors
from lm.runtime.joining import joined, restarts_failures, started_by_torchrun
from lm.runtime.ownership import Owner
from lm.runtime.processes import ALONE, Processes

MULTIRUN = "multirun.yaml"
"""What Hydra writes about a multirun before its first job."""


def train(overrides: Sequence[str] = ()) -> float | None:
    """`lm train` for Python: `lm.train(["model=rnn", "optim.lr=0.01"])`.

    Returns:
        The best validation loss, in nats per token.

    Raises:
        LmError: what the command line would print.
    """
    prepared = [config.prepare(override) for override in overrides]
    return run_job("train", config.Invocation(config.compose("train", prepared), tuple(prepared)))


def launch(verb: str, arguments: Sequence[str]) -> int:
    """Run the verb as its command line says and give the exit code.

    Raises:
        LmError: the command line is at fault, or its single job.
    """
    if not started_by_torchrun():
        return _launch(verb, arguments)
    if verb != "train":
        if int(os.environ["RANK"]):
            return ConfigError.code
        raise ConfigError(
            f"lm {verb} runs in one process, torchrun started {os.environ['WORLD_SIZE']}",
            f"Run it without torchrun: lm {verb} …",
        )
    with joined() as processes:
        if processes.alone:
            return _launch(verb, arguments, processes=processes)
        if not processes.first:
            return follow(processes)
        leader = Leader(processes)
        try:
            with leader.leading():
                return _launch(verb, arguments, leader=leader)
        except Stopped as stopped:
            if not restarts_failures():
                raise
            report(stopped)
            return 0  # with another code torchrun would start the run again


def _launch(
    verb: str,
    arguments: Sequence[str],
    *,
    leader: Leader | None = None,
    processes: Processes = ALONE,
) -> int:
    flags, given = read_flags(verb, arguments)
    config.load_plugins()
    overrides = [*config.local_search_path(flags.overrides), *flags.overrides]
    root, extra_dir = flags.config_name or verb, flags.config_dir
    raised: tuple[type[Exception], ...] = (Exception,)
    single, held = None, contextlib.ExitStack()
    if runs_jobs(flags):
        jobs, single = config.compose_jobs(root, overrides, extra_dir, sweep=flags.multirun)
        for job in jobs:
            config.parse(job, config.ROOTS[verb])
        if single is None:
            overrides += held.enter_context(_sweep_directory(verb, overrides, jobs[0]))
        # All else is a bug of ours from here on, and must not look like a mistake of the user's.
        raised = (HydraException, OmegaConfBaseException)
    elif flags.cfg or flags.help:
        config.compose(root, overrides, extra_dir=extra_dir)
    swept = frozenset[str]() if single else config.swept_keys(flags.overrides)
    task = _Task(verb, swept, leader, processes)
    with held, config.explained(root, overrides, raised=raised):
        if single is None:
            code = _call_hydra(verb, task, [*overrides, *given], plain=not flags.help)
        else:
            code = _run_composed(single, root, task)
    return code or task.outcome()


def _run_composed(composed: config.Composed, root: str, task: "_Task") -> int:
    """What `@hydra.main` does with a single job, after composing it."""
    runner = Hydra(task.verb, composed)
    GlobalHydra.instance().initialize(runner)
    try:
        runner.run(root, task, overrides=[])
    finally:
        GlobalHydra.instance().clear()
    return 0


def _call_hydra(verb: str, task: "_Task", arguments: list[str], *, plain: bool) -> int:
    main = hydra.main(
        version_base=config.VERSION_BASE, config_path=str(config.config_dir()), config_name=verb
    )(task)
    with (
        _argv([f"lm-{verb}", *arguments]),
        env_override({"HYDRA_FULL_ERROR": "1"}),
        contextlib.nullcontext() if plain else _without_schemas(),
    ):
        try:
            main()
        except SystemExit as exit_:
            return exit_.code if isinstance(exit_.code, int) else 0
    return 0


@dataclass
class _Task:
    """What Hydra calls for each job."""

    verb: str
    swept: frozenset[str]
    leader: Leader | None = None
    processes: Processes = ALONE
    owner: Owner = field(default_factory=Owner.of_this_process)
    codes: list[int] = field(default_factory=list)
    failure: Exception | None = None

    def __call__(self, composed: DictConfig) -> float | None:
        config.load_plugins()  # a launcher may have started this process
        context = HydraConfig.get()
        overrides = config.unresolved(context.overrides.task)
        if context.mode != RunMode.MULTIRUN:
            return self._single(composed, overrides)
        name = f"job {context.job.num} ({' '.join(overrides)})"
        sys.stderr.write(f"lm: {name}\n")
        own = Path(context.sweep.dir) / (
            str(context.job.num) if context.sweep.subdir == "." else context.sweep.subdir
        )
        try:
            return self._run(composed, overrides, own)
        except Exception as error:
            if Owner.of_this_process() != self.owner:
                # The launcher carries it to the process that counts.
                raise named(error, name, self.verb) from error
            self.codes.append(report(error, f"{name}: ", self.verb))
            return math.nan

    def _single(self, composed: DictConfig, overrides: list[str]) -> float | None:
        try:
            return self._run(composed, overrides)
        except Exception as error:  # raised again once Hydra, which would print it, is done
            self.failure = error
            return None

    def _run(
        self, composed: DictConfig, overrides: list[str], own: Path | None = None
    ) -> float | None:
        call = config.Invocation(composed, tuple(overrides), own, self.swept, self.processes)
        return run_job(self.verb, call if self.leader is None else self.leader.lead(call))

    def outcome(self) -> int:
        """The first failure's exit code, or 0.

        Raises:
            Exception: the single job's.
        """
        if self.failure is not None:
            raise self.failure
        return self.codes[0] if self.codes else 0


@contextlib.contextmanager
def _sweep_directory(verb: str, overrides: Sequence[str], job: DictConfig) -> Iterator[list[str]]:
    """Where a multirun's jobs go, unless the user said it: <runs>/<name>/multirun_<id>.

    It is taken away again when no job has left anything in it.

    Raises:
        StorageError: it cannot be made; this is the first thing that a multirun writes.
    """
    if any(config.key_of(override) == "hydra.sweep.dir" for override in overrides):
        yield []
        return
    stamp = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"
    runs, name = (OmegaConf.select(job, key) for key in ("runs", "name"))
    folder = Path(runs or "runs", name or verb, f"multirun_{stamp}")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with storage_errors(f"create {folder}"):
        folder.mkdir(parents=True)
    try:
        yield [f"hydra.sweep.dir={config.free_text(str(folder))}"]
    finally:
        written = {path.name for path in folder.iterdir()}
        if written <= {MULTIRUN}:
            (folder / MULTIRUN).unlink(missing_ok=True)
            for path in missing:
                with contextlib.suppress(OSError):  # another multirun has come meanwhile
                    path.rmdir()


@contextlib.contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _without_schemas() -> Iterator[None]:
    """Leave the groups of schemas out of Hydra's help: they are no choices."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        yield
    lines = text.getvalue().splitlines(keepends=True)
    sys.stdout.write("".join(line for line in lines if not line.startswith("schema/")))
