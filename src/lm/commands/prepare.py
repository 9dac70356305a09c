"""`lm prepare`: a corpus as tokens, so that `lm train` with the same groups begins at once."""

import logging
import os
import sys
import time

from lm.commands.start import build_corpus
from lm.config import PrepareConfig
from lm.data.corpus import SPLITS, Corpus
from lm.data.prepare import Prepared, prepare
from lm.data.workers import cores

log = logging.getLogger(__name__)

_TICK = 0.01  # of the clock of used time, by which the smallest text takes none


def run(config: PrepareConfig) -> float:
    """Print what each split came to, and how fast; megabytes a second."""
    cache = config.runtime.cache_folder()
    corpus = build_corpus(config.data, cache)
    for note in corpus.notes:
        log.info("%s: %s", corpus.name, note)
    splits = [name for name in SPLITS if corpus.split(name)]
    for name in splits:
        log.info("%s, in the order of the paths", corpus.describe(name))
    started, used = time.perf_counter(), _processor_seconds()
    prepared = prepare(
        corpus, config.tokenizer, config.data.unit, cache, splits=splits, workers=config.workers
    )
    seconds, used = time.perf_counter() - started, _processor_seconds() - used
    for store in prepared.stores.values():
        store.settle()
    megabytes = sum(prepared.stores[name].header.num_bytes for name in prepared.encoded) / 1e6
    said = "all of it was prepared before"
    if prepared.encoded:
        said = (
            f"{megabytes:,.1f} MB in {seconds:.1f} s: {megabytes / seconds:.1f} MB/s with at most"
            f" {config.workers or cores()} processes,"
            f" {megabytes / max(used, _TICK):.1f} MB for each second of a core"
        )
    lines = [*_table(corpus, prepared), said]
    sys.stdout.write("\n".join(lines) + "\n")
    return megabytes / seconds


def _processor_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _table(corpus: Corpus, prepared: Prepared) -> list[str]:
    tokenizer = prepared.tokenizer
    lines = [f"{corpus.name}: {tokenizer.kind} tokenizer, {tokenizer.vocab_size:,} tokens"]
    for name, store in prepared.stores.items():
        header = store.header
        lines.append(
            f"{name:<5}  {header.num_tokens:,} tokens  {header.num_bytes:,} bytes"
            f"  {header.unknown_count:,} unknown  shards: {len(header.shards):,}  {store.path}"
        )
    return lines
