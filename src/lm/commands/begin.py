"""How a run begins: fresh, resumed exactly (`resume=`), or from other weights (`init_from=`)."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from lm.checkpoint import Checkpoint, read, read_any
from lm.commands.start import Start, corpus_of
from lm.config import Invocation, TrainConfig, dump, parse, portable_config, resume_config
from lm.config.inherit import inherit_model
from lm.errors import CheckpointError, ConfigError
from lm.loading import opened
from lm.models import ModelConfig, RecurrentConfig
from lm.models.recurrent_config import HeadKind
from lm.run_directory import RunDirectory, begun_by
from lm.runtime.compute import Compute, Precision
from lm.runtime.processes import ALONE, Processes
from lm.runtime.untrusted import as_object
from lm.training.progress import Progress

log = logging.getLogger(__name__)


def begin(config: TrainConfig, call: Invocation, held: ExitStack) -> Start:
    """Look at `resume` and `init_from`, and find the corpus.

    What torchrun or Slurm had to start again goes on with the run that it began.

    Args:
        held: takes the lock of a run that is continued, before anything in it is read.
    """
    if config.resume is not None:
        return _resume(Path(config.resume), call, held)
    dump(portable_config(call.config))  # what cannot be saved is refused before anything is written
    earlier = _earlier_attempt(config, call)
    if earlier is not None and earlier.saved:
        return _resume(earlier.path, replace(call, overrides=()), held)
    if config.init_from is not None:
        start = _init_from(Path(config.init_from), call)
    else:
        compute, corpus = config.runtime.build(call.processes), corpus_of(config)
        start = Start(config, call.config, compute, corpus, config.tokenizer, call.processes)
    if earlier is not None:  # lost before its first checkpoint: its directory is taken once more
        start.directory = _taken(earlier.path, call.processes, held)
        if call.processes.first:
            start.directory.forget_metrics()
    return start


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The run that this job began before it was started again.

    Attributes:
        saved: it has a checkpoint.
    """

    path: Path
    saved: bool


def _earlier_attempt(config: TrainConfig, call: Invocation) -> _Earlier | None:
    processes, requeued = call.processes, _requeued()
    if not processes.attempt and not requeued:
        return None
    if not processes.first:
        told = processes.told("earlier")
        return _Earlier(Path(told["path"]), told["saved"]) if told else None
    parent, job = Path(config.runs, config.name), call.job_directory
    if requeued and job is not None and job.is_dir():
        found: Path | None = job
    else:
        found = begun_by(processes.launch, parent.glob("*") if job is None else [job])
    saved = found is not None and bool(RunDirectory(found).checkpoints.newest_first())
    processes.tell("earlier", {"path": str(found), "saved": saved} if found else {})
    return None if found is None else _Earlier(found, saved)


def _requeued() -> bool:
    """Slurm started this job before, and preempted it."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def _taken(path: Path, processes: Processes, held: ExitStack) -> RunDirectory:
    """A run's directory, which the first process owns from now on and the others are told."""
    if not processes.first:
        return RunDirectory(Path(processes.told("directory")))
    _refuse_links(path)
    directory = RunDirectory(path)
    held.enter_context(directory.owned())
    processes.tell("directory", str(path))
    return directory


def _chosen(
    processes: Processes, choose: Callable[[], tuple[Path, Checkpoint]]
) -> tuple[Path, Checkpoint]:
    """The checkpoint that the first process chooses, and where it is."""
    if not processes.first:
        folder = Path(processes.told("checkpoint"))
        return folder, read(folder)
    folder, checkpoint = choose()
    processes.tell("checkpoint", str(folder))
    return folder, checkpoint


def _resume(path: Path, call: Invocation, held: ExitStack) -> Start:
    path = RunDirectory.open(path).path if call.processes.first else path
    directory = _taken(path, call.processes, held)
    folder, checkpoint = _chosen(call.processes, directory.checkpoints.newest_good)
    found = opened(folder, checkpoint)
    composed = resume_config(found.composed, call.config, call.overrides)
    config = parse(composed, TrainConfig)
    compute = resumed_compute(config, checkpoint, call.processes)
    progress = as_object(checkpoint.state.get("progress"), "state.progress")
    log.info("resuming %s at step %d", directory.path, Progress.from_json(progress).step)
    return Start(
        config,
        composed,
        compute,
        corpus_of(config),
        found.tokenizer,
        call.processes,
        directory=directory,
        resumed=checkpoint,
    )


def resumed_compute(
    config: TrainConfig, checkpoint: Checkpoint, processes: Processes = ALONE
) -> Compute:
    """Where and how a run goes on: by the choices it made when it began."""
    compute = config.runtime.build(processes)
    if "compute" in checkpoint.state:
        picked = config.runtime.precision is Precision.auto
        saved = as_object(checkpoint.state["compute"], "state.compute")
        compute.resume(saved, keep_precision=picked)
    return compute


def _refuse_links(path: Path) -> None:
    """A run's files lie in its directory: a stranger's must not have this one written elsewhere.

    Raises:
        CheckpointError: naming the link.
    """
    for entry in [path / "checkpoints", *path.glob("*")]:
        if entry.is_symlink():
            raise CheckpointError(
                f"{entry} is a link, and a run that goes on would write where it points",
                "Put the file or folder itself in its place.",
            )


def _init_from(path: Path, call: Invocation) -> Start:
    folder, checkpoint = _chosen(call.processes, lambda: read_any(path, "best"))
    found = opened(folder, checkpoint)
    composed = inherit_model(found.composed, call.config, call.overrides)
    config = parse(composed, TrainConfig)
    theirs, ours = found.config.model, config.model
    for name in sorted(theirs.architecture().keys() | ours.architecture().keys()):
        old, new = theirs.architecture().get(name), ours.architecture().get(name)
        if old != new:
            raise CheckpointError(
                f"model.{name} is {new!r}, the weights of {path} have {old!r}",
                "Drop that override: the architecture comes with the weights.",
            )
    compute = config.runtime.build(call.processes)
    corpus = corpus_of(config)
    tokenizer = found.tokenizer
    if config.extend_vocabulary:
        _check_extendable(ours)
        before = tokenizer.vocab_size
        tokenizer = tokenizer.extended(corpus.train)
        log.info("vocabulary extended from %d to %d", before, tokenizer.vocab_size)
    return Start(config, composed, compute, corpus, tokenizer, call.processes, weights=checkpoint)


def _check_extendable(model: ModelConfig) -> None:
    """Refuse heads in which a word's place depends on how frequent it was.

    Raises:
        ConfigError: an adaptive softmax.
    """
    if isinstance(model, RecurrentConfig) and model.head is HeadKind.adaptive:
        raise ConfigError(
            "extend_vocabulary=true: model.head=adaptive has clusters of the old words only",
            "Start from weights with model.head=softmax or mixture.",
        )
