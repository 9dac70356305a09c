"""`lm train`: data → model → optimiser → fit → exact test."""

import hashlib
import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lm.checkpoint import read_any
from lm.commands import count
from lm.commands.begin import begin
from lm.commands.start import Start
from lm.config import Invocation, TrainConfig, command_line, invocation
from lm.data.streams import Streams
from lm.errors import CheckpointError, ConfigError
from lm.evaluation import evaluate
from lm.metrics import tags
from lm.models import LanguageModel, NgramConfig, RecurrentModel
from lm.models.language_model import parameter_counts, part_of
from lm.models.restore import restored
from lm.optim.groups import is_prefix
from lm.optim.optimizers import AdafactorConfig
from lm.run_directory import RunDirectory
from lm.runtime.device import machine
from lm.runtime.processes import Processes
from lm.training.identity import fingerprints
from lm.training.loop import Trainer
from lm.training.progress import Limits
from lm.training.signals import StopFlag
from lm.training.snapshot import restore
from lm.training.windows import Windows

log = logging.getLogger(__name__)


def run(config: TrainConfig) -> float | None:
    """Train as configured; the best validation loss, for sweepers that minimise it."""
    if isinstance(config.model, NgramConfig):
        return count.run(config)
    return train(config).progress.best_loss


def train(config: TrainConfig, stop: StopFlag | None = None) -> Trainer:
    """Train as configured, to the end and tested.

    Of several processes each does so with its own streams; the first one writes and speaks.

    Args:
        stop: what may ask the run to stop; None is a signal.
    """
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    processes = call.processes
    _check_processes(config, processes)
    processes.be_patient(config.runtime.timeout_seconds)
    stop = stop or StopFlag()
    with ExitStack() as held:
        held.enter_context(processes.saying_why())
        held.enter_context(stop.listening())
        with processes.in_turn():
            start, trainer = prepared_run(config, call, held, stop)
        directory = trainer.directory
        if processes.first:
            held.enter_context(directory.summarised(partial(standing, trainer)))
            if start.resumed is None:
                facts = {**machine(start.compute.device), **processes.describe()}
                directory.describe(start.run_text, list(call.overrides), facts)
        held.enter_context(processes.with_reasons())
        held.enter_context(processes.connected(start.compute.device))
        processes.check_same(identity_numbers(trainer), "data or models")
        with trainer.logs(start.resumed), stop.deferring():
            trainer.writer.begin(start.hyper_parameters(), call.given, call.swept)
            announce(trainer, start, call.overrides)
            with traced(trainer, start):
                reason = trainer.fit()
            if processes.first:
                finish(trainer, start, reason)
    return trainer


def prepared_run(
    config: TrainConfig, call: Invocation, held: ExitStack, stop: StopFlag
) -> tuple[Start, Trainer]:
    """What the run begins with, and the run as it stands; nothing is refused after this."""
    RunDirectory.check_place(Path(config.runs))
    start = begin(config, call, held)
    if isinstance(start.config.model, NgramConfig):
        raise CheckpointError(
            f"{config.resume or config.init_from} was counted, not trained by gradient: it"
            " cannot go on",
            "Count another text with lm train model=ngram.",
        )
    trainer = assemble(start, held, stop)
    if call.processes.first:
        held.enter_context(trainer.directory.logging())
    if start.resumed is not None:  # what is refused leaves the summary as it was
        restore(trainer, start.resumed)
    return start, trainer


def _check_processes(config: TrainConfig, processes: Processes) -> None:
    """Refuse what cannot be split, before any work.

    Raises:
        ConfigError: naming the field.
    """
    size = processes.size
    if processes.alone and config.runtime.processes > 1:
        raise ConfigError(
            f"runtime.processes={config.runtime.processes}: only lm train starts several processes",
            "Drop it here.",
        )
    if config.runtime.processes not in (1, size):
        raise ConfigError(
            f"runtime.processes={config.runtime.processes}, but torchrun started {size}",
            "Drop runtime.processes: torchrun says how many.",
        )


def assemble(start: Start, held: ExitStack, stop: StopFlag) -> Trainer:
    """Everything a run consists of; its directory comes last, when nothing can be refused."""
    config, compute, processes = start.config, start.compute, start.processes
    _check_streams(config, processes)
    if start.splits:
        check_split(config)
    prepared = start.load_data()
    streams = Streams.for_training(
        prepared.stores["train"],
        config.trainer.batch_size,
        config.trainer.window,
        config.data.unit,
        label=start.corpus.describe("train"),
        own=processes.share(config.trainer.batch_size),
    )
    start.settle_sizes(prepared.tokenizer.vocab_size)
    model = start.build_model(prepared.tokenizer, prepared.stores["train"])
    assert isinstance(model, RecurrentModel)
    model.compute = compute
    model = model.to(compute.device)
    optimizers = config.optim.build(trainable(model, config.freeze), lr_scales=config.lr_scales)
    windows = Windows(streams, config.trainer.random_window, config.seed)
    limits = Limits.of(config.trainer, windows)
    schedule = config.schedule.build(total_steps=limits.total_steps, epoch_of=windows.epoch_of)
    weights = sum(p.itemsize * model.size_of(n, p) for n, p in model.named_parameters())
    RunDirectory.check_room(Path(config.runs), weights, config.trainer.keep)
    directory = start.directory or start.create_directory(held)
    return Trainer(
        config=config.trainer,
        seed=config.seed,
        tokenizer=prepared.tokenizer,
        prompt=start.prompt,
        model=model,
        optimizers=optimizers,
        schedule=schedule,
        streams=streams,
        windows=windows,
        valid=prepared.stores["valid"],
        test=prepared.stores["test"],
        limits=limits,
        directory=directory,
        config_text=start.config_text,
        identity={
            "machine": {
                **machine(compute.device),
                "precision": compute.precision.value,
                "kernels": compute.kernels.value,
                "processes": processes.size,
            },
            "data": {name: store.fingerprint for name, store in prepared.stores.items()},
            **fingerprints(config.model, prepared.tokenizer),
        },
        stop=stop,
        processes=processes,
    )


def check_split(config: TrainConfig) -> None:
    """Refuse what needs all words at once, or one process to do what takes all of them.

    Raises:
        ConfigError: naming the field.
    """
    refused = {
        "trainer.clip.adaptive": config.trainer.clip.adaptive is not None,
        "trainer.communication.local_steps": config.trainer.communication.local_steps > 1,
        "trainer.save_in_background": config.trainer.save_in_background,
        "extend_vocabulary": config.extend_vocabulary,
        "trainer.inspect_every": config.trainer.inspect_every is not None,
        "optim=adafactor": isinstance(config.optim, AdafactorConfig),
    }
    for name, given in refused.items():
        if given:
            raise ConfigError(
                f"runtime.split_vocabulary=true does not go with {name}", f"Drop {name}."
            )


def _check_streams(config: TrainConfig, processes: Processes) -> None:
    """Each process needs a stream for each of its passes.

    Raises:
        ConfigError: there are too few.
    """
    batch, passes = config.trainer.batch_size, config.trainer.accumulate
    if batch < processes.size * passes:
        raise ConfigError(
            f"trainer.batch_size={batch} streams cannot be split over {processes.size} processes"
            f"{f' and trainer.accumulate={passes} passes' if passes > 1 else ''}",
            "Raise trainer.batch_size, or take fewer processes.",
        )


def identity_numbers(trainer: Trainer) -> list[int]:
    """What has to be the same for all processes of a run, as a number."""
    identity = {k: v for k, v in trainer.identity.items() if k != "machine"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
    return [int.from_bytes(digest[:8], "big", signed=True)]


def announce(trainer: Trainer, start: Start, overrides: Sequence[str]) -> None:
    """Say what is about to happen, with the counts."""
    streams, compute = trainer.streams, trainer.model.compute
    counts = parameter_counts(trainer.model)
    listed = "  ".join(f"{part} {count:,}" for part, count in counts.items())
    splits = zip(("train", "valid", "test"), (streams.store, trainer.valid, trainer.test),
                 strict=True)  # fmt: skip
    lines = [
        f"{start.corpus.name}: {', '.join(f'{name} {len(store):,}' for name, store in splits)}"
        f" tokens, vocabulary {trainer.tokenizer.vocab_size:,}",
        f"{streams.num_streams} streams of {streams.window_length} steps,"
        f" {streams.windows_per_epoch} windows an epoch;"
        f" {streams.remainder} remainder tokens are not trained",
        f"{compute.device}, products in {compute.precision.value} ({compute.reason}),"
        f" {compute.kernels.value} kernels{spread_of(trainer)}",
        f"parameters: {listed}",
    ]
    for line in lines:
        log.info("%s", line)
    said = "\n".join([command_line("train", overrides), *lines])
    texts = {tags.DESCRIPTION: said, tags.CONFIG: trainer.config_text, tags.PARAMETERS: listed}
    for tag, text in texts.items():
        trainer.writer.text(trainer.progress.step, trainer.progress.tokens, tag, text)
    log.info("run directory: %s", trainer.directory.path)


def spread_of(trainer: Trainer) -> str:
    """How the streams are spread over processes, where there are several."""
    if trainer.processes.alone:
        return ""
    size, threads = trainer.processes.size, torch.get_num_threads()
    return (
        f"; {size} processes of some {len(trainer.streams.own)} streams and"
        f" {threads} {'thread' if threads == 1 else 'threads'}"
    )


@contextmanager
def traced(trainer: Trainer, start: Start) -> Iterator[None]:
    """Record a trace of what the first process does, if one is asked for."""
    if not trainer.processes.first:
        yield
        return
    with start.config.runtime.profiled(trainer.directory.path / "trace.json"):
        yield


def standing(trainer: Trainer) -> dict[str, object]:
    """How far a run has come, for its summary."""
    progress = trainer.progress
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "best_step": progress.best_step,
        "best_valid_loss": progress.best_loss,
        "parameters": parameter_counts(trainer.model)["total"],
    }


def finish(trainer: Trainer, start: Start, reason: str) -> None:
    """Evaluate the best checkpoint exactly, record it, and say what to try next."""
    trainer.console.close()
    for store in (trainer.streams.store, trainer.valid, trainer.test):
        store.settle()
    config, progress, directory = trainer.config, trainer.progress, trainer.directory
    final: dict[str, float] = {}
    facts: dict[str, object] = {"reason": reason, "metrics": final}
    if progress.best_loss is not None:
        final["valid/best_loss"] = progress.best_loss
    described = ""
    if config.test:
        score = evaluate(
            best_model(trainer, start),
            trainer.test,
            unit=trainer.streams.unit,
            on_window=trainer.leave_if_stopped,
        )
        final |= score.scalars("test")
        facts["test"] = score.to_json()
        described = score.describe()
    trainer.writer.scalars(progress.step, progress.tokens, final)
    trainer.writer.end()
    directory.summarise("done", **facts, **standing(trainer))
    log.info("done: %s, in %.0f s", reason, progress.seconds)
    if described:
        log.info("test  %s", described)
    next_ = suggestions(trainer, start.config.runtime.cache)
    log.info("run directory: %s\nnext:\n  %s", directory.path, "\n  ".join(next_))


def suggestions(trainer: Trainer, cache: str | None) -> list[str]:
    """The next three commands to try.

    Args:
        cache: as configured; a run that goes on has to be told again.
    """
    path = shlex.quote(str(trainer.directory.path))
    again = [] if cache is None else [shlex.quote(f"runtime.cache={cache}")]
    return [
        f"tensorboard --logdir {shlex.quote(str(trainer.directory.path.parent))}",
        f"lm generate run={path} prompt={shlex.quote(trainer.prompt)}",
        " ".join([trainer.continuation, *trainer.limits.raised(trainer.progress), *again]),
    ]


def best_model(trainer: Trainer, start: Start) -> LanguageModel:
    """The model with the best checkpoint's weights; without a best one, the newest's."""
    folder, checkpoint = read_any(trainer.directory.path, "best")
    log.info("exact evaluation of %s …", folder.name)
    model = trainer.model
    if model.shard is None:
        model.load_tensors(checkpoint.model)
        return model
    whole = restored(start.config.model, model.vocab_size, checkpoint.model).to(model.device)
    whole.compute = model.compute
    return whole


def trainable(model: RecurrentModel, freeze: list[str]) -> dict[str, nn.Parameter]:
    """Freeze the parameters below the given name prefixes, and give the others.

    Raises:
        ConfigError: a prefix matches nothing, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    for prefix in freeze:
        frozen = [name for name in parameters if is_prefix(prefix, name)]
        if not frozen:
            parts = ", ".join(sorted({part_of(name) for name in parameters}))
            raise ConfigError(f"freeze: no parameter begins with {prefix!r}", f"Parts: {parts}.")
        for name in frozen:
            parameters[name].requires_grad_(False)
    left = {name: p for name, p in parameters.items() if p.requires_grad}
    if all(part_of(name) == "initial" for name in left):  # trained in an epoch's first step only
        raise ConfigError(f"freeze={freeze} leaves nothing to train", "Freeze less.")
    return left
