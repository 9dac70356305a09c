"""`lm evaluate`: the exact loss, perplexity and bits per byte of a checkpoint on a corpus."""

import json
import logging
import math
import sys
from pathlib import Path

from tqdm import tqdm

from lm.config import EvaluateConfig
from lm.data.corpus import Unit
from lm.data.prepare import Prepared, prepare
from lm.errors import CheckpointError
from lm.evaluation import evaluate
from lm.loading import Loaded, load
from lm.metrics.perplexity import Score
from lm.run_directory import RunDirectory
from lm.runtime.files import storage_errors, write_atomically

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> float:
    """Print a line per split; the loss of the first split."""
    compute = config.runtime.build()
    if config.output is not None:
        RunDirectory.check_place(Path(config.output).parent)
    loaded = load(config.run, checkpoint=config.checkpoint, device=str(compute.device))
    loaded.model.compute = compute
    data = config.data or loaded.config.data
    cache = config.runtime.cache_folder()
    corpus = data.build(cache)
    unit = config.unit or (loaded.config.data.unit if data.unit is Unit.stream else data.unit)
    prepared = prepare(corpus, loaded.tokenizer, unit, cache, splits=config.splits)
    if config.data is None and unit is data.unit:
        compare_data(loaded, prepared, allowed=config.changed_data)
    log.info("%s on %s, state reset by %s", loaded.path, corpus.name, unit.name)
    scores: dict[str, Score] = {}
    for split, store in prepared.stores.items():
        with tqdm(total=len(store) - 1, unit="tok", unit_scale=True, disable=None) as bar:
            scores[split] = evaluate(
                loaded.model,
                store,
                num_streams=config.streams,
                window=config.window,
                unit=unit,
                on_window=bar.update,
            )
        sys.stdout.write(f"{split}  {scores[split].describe()}\n")
    if config.output is not None:
        write_scores(Path(config.output), scores)
    return scores[config.splits[0]].loss


def compare_data(loaded: Loaded, prepared: Prepared, *, allowed: bool) -> None:
    """A run's own data must be what it was trained with.

    Raises:
        CheckpointError: a split has other tokens, and `changed_data` does not allow it.
    """
    for split, store in prepared.stores.items():
        if loaded.data.get(split, store.fingerprint) == store.fingerprint:
            continue
        if not allowed:
            raise CheckpointError(
                f"the {split} split is not the one that {loaded.path} was trained with",
                "Restore the data, or say changed_data=true.",
            )
        log.warning("the %s split has changed since training", split)


def write_scores(path: Path, scores: dict[str, Score]) -> None:
    """The numbers as JSON, by split."""
    table = {
        split: {
            "loss": finite(score.loss),
            "perplexity": finite(score.perplexity),
            "bits_per_byte": finite(score.bits_per_byte),
            "word_perplexity": finite(score.word_perplexity),
            **score.to_json(),
        }
        for split, score in scores.items()
    }
    with storage_errors(f"write {path}"):
        write_atomically(path, (json.dumps(table, indent=1) + "\n").encode())


def finite(value: float | None) -> float | None:
    """JSON has neither infinity nor NaN."""
    return value if value is not None and math.isfinite(value) else None
