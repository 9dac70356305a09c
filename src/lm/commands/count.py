"""`lm train model=ngram`: data → counts → exact validation → checkpoint → exact test."""

import logging
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from lm.checkpoint import Checkpoint
from lm.commands.begin import begin
from lm.commands.start import Start
from lm.config import Invocation, TrainConfig, command_line, invocation, key_of
from lm.data.prepare import Prepared
from lm.data.streams import Streams
from lm.errors import ConfigError
from lm.evaluation import evaluate
from lm.metrics import tags
from lm.metrics.perplexity import Score
from lm.metrics.writer import MetricsWriter
from lm.models import NgramModel
from lm.models.kneser_ney import FALLBACK, Counter, Discounts
from lm.models.ngram_tables import Level
from lm.run_directory import RunDirectory
from lm.runtime.device import machine
from lm.training.identity import fingerprints
from lm.training.progress import Progress

log = logging.getLogger(__name__)

# Words counted at a time: some 100 MB.
_WINDOW = 1 << 20
_OF_USE = frozenset({"trainer.bar", "trainer.test"})
_REASON = "model=ngram is counted, not trained by gradient"


@dataclass(slots=True)
class Count:
    """A run that counts.

    Attributes:
        final: the metrics of its summary.
    """

    start: Start
    prepared: Prepared
    model: NgramModel
    directory: RunDirectory
    writer: MetricsWriter
    progress: Progress = field(default_factory=Progress)
    final: dict[str, float] = field(default_factory=dict)

    def standing(self) -> dict[str, object]:
        """How far it has come, for its summary; its parameters are the n-grams of all lengths."""
        return self.progress.summary(self.model.num_ngrams)


def run(config: TrainConfig) -> float | None:
    """Count the training text; the validation loss, for sweepers that minimise it."""
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    RunDirectory.check_place(Path(config.runs))
    refuse_training(config, call)
    with ExitStack() as held:
        start = begin(config, call, held)
        counted = assemble(start, held)
        directory = counted.directory
        held.enter_context(directory.logging())
        held.enter_context(directory.summarised(counted.standing))
        directory.describe(start.run_text, list(call.overrides), machine(counted.model.device))
        counted.writer.begin(start.hyper_parameters(), call.given, call.swept)
        announce(counted, call.overrides)
        with config.runtime.profiled(directory.path / "trace.json"):
            count(counted)
        loss = score(counted, "valid").loss
        counted.progress.observe(loss)
        counted.final["valid/best_loss"] = loss
        save(counted)
        if config.trainer.test:
            counted.final |= score(counted, "test").scalars("test")
        finish(counted)
    return counted.progress.best_loss


def refuse_training(config: TrainConfig, call: Invocation) -> None:
    """Say no to what acts on training by gradient, rather than ignore it.

    Raises:
        ConfigError: naming the field.
    """
    for name in ("resume", "init_from", "freeze", "lr_scales", "extend_vocabulary"):
        if getattr(config, name):
            raise ConfigError(f"{_REASON}: it has no use for {name}", f"Drop {name}.")
    for key in map(key_of, call.overrides):
        if key.partition(".")[0] in ("optim", "schedule", "trainer") and key not in _OF_USE:
            listed = " and ".join(sorted(_OF_USE))
            raise ConfigError(
                f"{_REASON}: it has no use for {key}", f"Drop it; {listed} do act here."
            )


def assemble(start: Start, held: ExitStack) -> Count:
    """Everything the run consists of; its directory comes last, when nothing can be refused."""
    prepared = start.load_data()
    for store in prepared.stores.values():
        store.settle()
    model = start.build_model(prepared.tokenizer, prepared.stores["train"])
    assert isinstance(model, NgramModel)
    directory = start.directory or start.create_directory(held)
    if start.resumed is not None:  # by Slurm, whose job is over: counted again, as it was
        directory.forget_metrics()
    writer = MetricsWriter(directory.path, tokens_axis=False)
    held.callback(writer.close)
    return Count(start, prepared, model, directory, writer)


def announce(run: Count, overrides: Sequence[str]) -> None:
    """Say what is about to happen, with the counts."""
    stores = run.prepared.stores
    counts = ", ".join(f"{name} {len(stores[name]):,}" for name in ("train", "valid", "test"))
    size = run.prepared.tokenizer.vocab_size
    line = f"{run.start.corpus.name}: {counts} tokens, vocabulary {size:,}"
    log.info("%s", line)
    run.writer.text(0, 0, tags.DESCRIPTION, f"{command_line('train', overrides)}\n{line}")
    run.writer.text(0, 0, tags.CONFIG, run.start.config_text)
    log.info("run directory: %s", run.directory.path)


def count(run: Count) -> None:
    """Read the training text once for each length of n-grams, as evaluation will read others."""
    config, model, store = run.start.config, run.model, run.prepared.stores["train"]
    started = time.perf_counter()
    streams = Streams(store, 1, _WINDOW, config.data.unit)
    counter = Counter(model.order, model.vocab_size)
    total, off = model.order * streams.targets_per_epoch, None if config.trainer.bar else True
    with tqdm(total=total, unit="tok", unit_scale=True, disable=off) as bar:
        for _ in range(model.order):
            for window in streams.evaluation_windows():
                counter.read(window.tokens, window.targets, window.resets)
                bar.update(window.num_targets)
            counter.end_pass()
    levels = counter.levels()
    model.levels = [level for level, _ in levels]
    run.progress.tokens = streams.targets_per_epoch
    run.progress.seconds = time.perf_counter() - started
    run.writer.scalars(0, run.progress.tokens, {tags.SECONDS: run.progress.seconds})
    described = [describe(length, *level) for length, level in enumerate(levels, start=1)]
    log.info("%s", "\n".join(described))
    run.writer.text(0, run.progress.tokens, tags.PARAMETERS, "\n".join(described))


def describe(length: int, level: Level, discounts: Discounts) -> str:
    """One line for people on the n-grams of one length."""
    numbers = " ".join(f"{discount:.3f}" for discount in discounts)
    said = " (the text gives no estimate)" if discounts == FALLBACK else ""
    return f"{length}-grams: {len(level.keys):,}, discounts {numbers}{said}"


def score(run: Count, split: str) -> Score:
    """Evaluate a split exactly, and log it."""
    result = evaluate(run.model, run.prepared.stores[split], unit=run.start.config.data.unit)
    run.writer.scalars(0, run.progress.tokens, result.scalars(split))
    log.info("%s  %s", split, result.describe())
    return result


def save(run: Count) -> None:
    """Write the one checkpoint that there is: the best and the last."""
    stores, device = run.prepared.stores, run.model.device
    checkpoint = Checkpoint(
        model=run.model.tensors(),
        training={},
        state={
            "progress": run.progress.to_json(),
            "machine": machine(device),
            "data": {name: store.fingerprint for name, store in stores.items()},
            **fingerprints(run.start.config.model, run.prepared.tokenizer),
        },
        config=run.start.config_text,
        tokenizer=run.prepared.tokenizer.to_json(),
    )
    run.directory.checkpoints.save(0, checkpoint, best=True, keep=1)


def finish(run: Count) -> None:
    """Record the numbers, and say what to try next."""
    run.writer.scalars(0, run.progress.tokens, {"valid/best_loss": run.final["valid/best_loss"]})
    run.writer.end()
    run.directory.summarise("done", reason="counted", metrics=run.final, **run.standing())
    path = shlex.quote(str(run.directory.path))
    log.info("done: counted, in %.0f s", run.progress.seconds)
    log.info(
        "run directory: %s\nnext:\n  tensorboard --logdir %s\n  lm generate run=%s prompt=%s\n"
        "  lm evaluate run=%s splits=[valid,test]",
        run.directory.path, shlex.quote(str(run.directory.path.parent)), path,
        shlex.quote(run.start.prompt), path,
    )  # fmt: skip
