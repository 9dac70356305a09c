"""What a run says of itself: what is about to happen, how far it has come, what came of it."""

import logging
import shlex
from collections.abc import Sequence

import torch

from lm.checkpoint import read_any
from lm.commands.start import Start
from lm.config import command_line
from lm.evaluation import evaluate
from lm.metrics import tags
from lm.models import LanguageModel
from lm.models.language_model import parameter_counts
from lm.models.restore import restored
from lm.training.loop import Trainer

log = logging.getLogger(__name__)


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


def standing(trainer: Trainer) -> dict[str, object]:
    """How far a run has come, for its summary."""
    return trainer.progress.summary(parameter_counts(trainer.model)["total"])


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
