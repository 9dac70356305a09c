"""`lm evaluate`: the exact loss, perplexity and bits per byte of a checkpoint on a corpus."""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from lm.config import EvaluateConfig
from lm.data.prepare import prepare
from lm.evaluation import evaluate
from lm.loading import load
from lm.metrics.perplexity import Score
from lm.runtime.files import storage_errors, write_atomically

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> float:
    """Print a line per split; the loss of the first split."""
    device = config.runtime.build()
    loaded = load(config.run, checkpoint=config.checkpoint, device=str(device))
    data = config.data or loaded.config.data
    corpus = data.build(config.runtime.cache_folder())
    prepared = prepare(
        corpus, loaded.tokenizer, data.unit, config.runtime.cache_folder(), splits=config.splits
    )
    log.info("%s on %s", loaded.path, corpus.name)
    scores: dict[str, Score] = {}
    for split, store in prepared.stores.items():
        with tqdm(total=len(store) - 1, unit="tok", unit_scale=True, disable=None) as bar:
            scores[split] = evaluate(
                loaded.model,
                store,
                num_streams=config.streams,
                window=config.window,
                unit=data.unit,
                on_window=bar.update,
            )
        sys.stdout.write(f"{split}  {scores[split].describe()}\n")
    if config.output is not None:
        write_scores(Path(config.output), scores)
    return scores[config.splits[0]].loss


def write_scores(path: Path, scores: dict[str, Score]) -> None:
    """The numbers as JSON, by split."""
    table = {
        split: {
            "loss": score.loss,
            "perplexity": score.perplexity,
            "bits_per_byte": score.bits_per_byte,
            "word_perplexity": score.word_perplexity,
            **asdict(score),
        }
        for split, score in scores.items()
    }
    with storage_errors(f"write {path}"):
        write_atomically(path, (json.dumps(table, indent=1) + "\n").encode())
