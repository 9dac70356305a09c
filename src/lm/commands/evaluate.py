"""`lm evaluate`: loss, perplexity and bits per byte of a checkpoint on a corpus, by any method."""

import json
import logging
import sys
from functools import partial
from pathlib import Path

from lm.commands.splits import Splits
from lm.config import EvaluateConfig
from lm.errors import CheckpointError
from lm.evaluation.audit import audit, require
from lm.evaluation.interpolation import Interpolated
from lm.evaluation.method import Method, Static
from lm.evaluation.protocol import Settings, Table, build_methods, measure, tune
from lm.evaluation.report import compare, describe, to_json
from lm.loading import Loaded, load
from lm.models import LanguageModel
from lm.run_directory import RunDirectory
from lm.runtime.compute import Compute
from lm.runtime.files import storage_errors, write_atomically

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> float:
    """Print a line or a table per split; the loss of the first split by the last method."""
    compute = config.runtime.build()
    if config.output is not None:
        RunDirectory.check_place(Path(config.output).parent)
    loaded = load_model(config.run, compute, config.checkpoint)
    beside = partial(load_beside, loaded, compute)
    rival = None if config.against is None else beside("against", config.against)
    others = {path: beside("interpolate", path) for path in config.interpolate or ()}
    splits = Splits.of(config, loaded)
    texts = [splits(name) for name in config.splits]
    log.info("%s on %s, state reset by %s", loaded.path, splits.corpus.name, splits.unit.name)
    if config.audit:
        check(loaded, splits)
    build = partial(build_methods, protocol=config.method, settings=settings(config, splits))
    methods = mixed(build(loaded.model), others, config.window)
    rivals = [] if rival is None else build(rival.model)
    if any(method.needs_tuning for method in (*methods, *rivals)):
        valid = splits("valid", config.tune_tokens)
        tune(methods, valid)
        tune(rivals, valid)
    tables = []
    for text in texts:
        tables.append(measure(methods, text, config.bootstrap, rivals))
        lines = [describe(tables[-1]), *compare(tables[-1], config.run, config.against or "")]
        sys.stdout.write("\n".join(lines) + "\n")
    if config.output is not None:
        write_tables(Path(config.output), tables)
    return tables[0].rows[-1].score.loss


def load_model(path: str, compute: Compute, checkpoint: str = "best") -> Loaded:
    """A checkpoint, computing as the command does."""
    loaded = load(path, checkpoint=checkpoint, device=str(compute.device))
    loaded.model.compute = compute
    return loaded


def load_beside(loaded: Loaded, compute: Compute, field: str, path: str) -> Loaded:
    """Another model for the same tokens.

    Raises:
        CheckpointError: it has another vocabulary.
    """
    other = load_model(path, compute)
    if other.tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        raise CheckpointError(
            f"{field}={path} has another vocabulary than {loaded.path}, so that its tokens are"
            f" others: {other.tokenizer.vocab_size:,} against {loaded.tokenizer.vocab_size:,}",
            f"Set {field} to a run with the same tokenizer.",
        )
    return other


def settings(config: EvaluateConfig, splits: Splits) -> Settings:
    """What the methods are built with."""
    return Settings(
        window=config.window,
        num_streams=config.streams,
        temperature=config.temperature,
        cache=config.cache,
        dynamic=config.dynamic,
        train=partial(splits, "train"),
    )


def mixed(methods: list[Method], others: dict[str, Loaded], window: int) -> list[Method]:
    """The methods, and each of them mixed with the other models."""
    if not others:
        return methods
    models: dict[str, LanguageModel] = {path: other.model for path, other in others.items()}
    static = [Static(model, window=window, name=path) for path, model in models.items()]
    return methods + [Interpolated(method, static) for method in methods]


def check(loaded: Loaded, splits: Splits) -> None:
    """Print the audit of a model.

    Raises:
        AuditError: a check failed.
    """
    checks = audit(loaded.model, splits.held_out())
    sys.stdout.write("".join(f"{found.describe()}\n" for found in checks))
    require(checks)


def write_tables(path: Path, tables: list[Table]) -> None:
    """The numbers as JSON, by split."""
    content = {table.split: to_json(table) for table in tables}
    with storage_errors(f"write {path}"):
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
