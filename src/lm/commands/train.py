"""`lm train`: data → model → optimiser → fit → exact test."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from lm.checkpoint import CheckpointFolder, read
from lm.commands.start import Start, begin
from lm.config import TrainConfig, invocation, job_directory
from lm.config.fields import PATH_FIELDS, flatten
from lm.data.corpus import Corpus
from lm.data.prepare import Prepared, prepare
from lm.data.streams import Streams
from lm.errors import ConfigError, LmError, Stopped
from lm.evaluation import check_evaluable, evaluate
from lm.metrics import tags
from lm.metrics.perplexity import Score
from lm.models import LanguageModel
from lm.models.language_model import parameter_counts, part_of
from lm.optim.base import is_prefix
from lm.run_directory import RunDirectory
from lm.runtime.device import machine
from lm.training.loop import Trainer
from lm.training.progress import Limits
from lm.training.signals import StopFlag
from lm.training.snapshot import load_parameters, restore

log = logging.getLogger(__name__)


def run(config: TrainConfig) -> float | None:
    """Train as configured; the best validation loss, for sweepers that minimise it."""
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    start = begin(config, call)
    config = start.config
    device = config.runtime.build()
    prepared = load_data(start)
    streams = Streams.for_training(
        prepared.stores["train"],
        config.trainer.batch_size,
        config.trainer.window,
        config.data.unit,
        label=f"the training split of {start.corpus.name}",
    )
    model = start.build_model(prepared.tokenizer).to(device)
    optimizers = config.optim.build(trainable(model, config.freeze), lr_scales=config.lr_scales)
    limits = Limits.of(config.trainer, streams)
    schedule = config.schedule.build(
        total_steps=limits.total_steps, steps_per_epoch=streams.windows_per_epoch
    )
    directory = start.directory or RunDirectory.create(
        Path(config.runs) / config.name, job_directory()
    )
    with directory.owned(), directory.logging(), summarised(directory):
        trainer = Trainer(
            config=config.trainer,
            seed=config.seed,
            tokenizer=prepared.tokenizer,
            prompt=start.prompt,
            model=model,
            optimizers=optimizers,
            schedule=schedule,
            streams=streams,
            valid=prepared.stores["valid"],
            limits=limits,
            directory=directory,
            config_text=start.config_text,
            identity={
                "machine": machine(device),
                "data": {name: store.fingerprint for name, store in prepared.stores.items()},
            },
            stop=StopFlag(),
        )
        if start.resumed is not None:
            restore(trainer, start.resumed)
        else:
            directory.describe(start.run_text, list(call.overrides), machine(device))
        with trainer.logs(start.resumed), trainer.stop.listening():
            announce(trainer, start.corpus, prepared)
            with config.runtime.profiled(directory.path / "trace.json"):
                reason = trainer.fit()
            finish(trainer, prepared, reason, start)
    return trainer.progress.best_loss


def load_data(start: Start) -> Prepared:
    """The corpus as tokens, by the tokenizer that the run starts with."""
    config = start.config
    for note in start.corpus.notes:
        log.info("%s: %s", start.corpus.name, note)
    prepared = prepare(
        start.corpus, start.tokenizer, config.data.unit, config.runtime.cache_folder()
    )
    for split in ("valid", "test"):
        check_evaluable(prepared.stores[split])
    return prepared


def announce(trainer: Trainer, corpus: Corpus, prepared: Prepared) -> None:
    """Say what is about to happen, with the counts."""
    stores, streams = prepared.stores, trainer.streams
    sizes = ", ".join(f"{name} {len(store):,}" for name, store in stores.items())
    log.info("%s: %s tokens, vocabulary %s", corpus.name, sizes,
             f"{prepared.tokenizer.vocab_size:,}")  # fmt: skip
    log.info(
        "%d streams of %d steps, %d windows an epoch; %d remainder tokens are not trained",
        streams.num_streams, streams.window_length, streams.windows_per_epoch, streams.remainder,
    )  # fmt: skip
    counts = parameter_counts(trainer.model)
    listed = "  ".join(f"{part} {count:,}" for part, count in counts.items())
    log.info("parameters: %s", listed)
    progress = trainer.progress
    trainer.writer.text(progress.step, progress.tokens, tags.PARAMETERS, listed)
    trainer.writer.text(progress.step, progress.tokens, tags.CONFIG, trainer.config_text)
    log.info("run directory: %s", trainer.directory.path)


@contextmanager
def summarised(directory: RunDirectory) -> Iterator[None]:
    """Keep `summary.json` true whatever happens."""
    directory.summarise("running")
    try:
        yield
    except Stopped as stop:
        directory.summarise("stopped", reason=stop.cause)
        raise
    except BaseException as error:
        cause = error.cause if isinstance(error, LmError) else repr(error)
        # The disk may be what failed; then its error must not hide the one under way.
        try:
            directory.summarise("failed", reason=cause)
        except (LmError, OSError) as second:
            log.warning("summary.json was not written: %s", second)
        raise


def finish(trainer: Trainer, prepared: Prepared, reason: str, start: Start) -> None:
    """Evaluate the best checkpoint exactly, record it, and say what to try next."""
    trainer.console.close()
    scores: dict[str, Score] = {}
    config, progress, directory = trainer.config, trainer.progress, trainer.directory
    load_best(trainer.model, directory.checkpoints)
    if config.test:
        log.info("exact evaluation of the best checkpoint (step %d) …", progress.best_step)
        scores["test"] = evaluate(
            trainer.model,
            prepared.stores["test"],
            unit=trainer.streams.unit,
            on_window=trainer.leave_if_stopped,
        )
    final = {
        tag: value for name, score in scores.items() for tag, value in score.scalars(name).items()
    }
    if progress.best_loss is not None:
        final["valid/best_loss"] = progress.best_loss
    trainer.writer.scalars(progress.step, progress.tokens, final)
    trainer.writer.hparams(hyper_parameters(start), final)
    directory.summarise(
        "done",
        reason=reason,
        steps=progress.step,
        tokens=progress.tokens,
        seconds=progress.seconds,
        best_step=progress.best_step,
        parameters=parameter_counts(trainer.model)["total"],
        metrics=final,
    )
    log.info("done: %s, in %.0f s", reason, progress.seconds)
    for name, score in scores.items():
        log.info("%s  %s", name, score.describe())
    path = directory.path
    log.info(
        "run directory: %s\nnext:\n  tensorboard --logdir %s\n"
        "  lm generate run=%s prompt=%s\n  lm train resume=%s trainer.max_epochs=%d",
        path, path.parent, path, shlex.quote(trainer.prompt), path, progress.epoch + 5,
    )  # fmt: skip


def load_best(model: LanguageModel, checkpoints: CheckpointFolder) -> None:
    """Put the best checkpoint's weights into the model; without a best one, the last."""
    load_parameters(model, read(checkpoints.find("best")).model)


def hyper_parameters(start: Start) -> dict[str, bool | str | float | int]:
    """The scalar configuration values by dotted name, places on this machine left out."""
    return {
        name: value
        for name, value in flatten(start.plain_config()).items()
        if isinstance(value, bool | str | float | int) and name not in PATH_FIELDS
    }


def trainable(model: LanguageModel, freeze: list[str]) -> dict[str, nn.Parameter]:
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
    if not left:
        raise ConfigError(f"freeze={freeze} leaves nothing to train", "Freeze less.")
    return left
