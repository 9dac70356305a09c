"""The row of random files: I3."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
from fault_plan import Figure, Finding, Trial, log_lines, row
from odd_text import text
from trials import in_child

from lm.data import batch, pieces
from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import Prepared, prepare
from lm.data.store import TokenStore
from lm.data.tokenizers import (
    BpeConfig,
    ByteConfig,
    CharConfig,
    Tokenizer,
    TokenizerConfig,
    WordConfig,
    tokenizer_from_json,
)
from lm.errors import DataError


@row(
    "I3",
    "random files through every tokenizer: noise, damaged UTF-8, odd spaces, NULs, long words",
    "no byte lost, or exit 3 with the file and the offset; bounded memory and time",
    Figure.input,
    few=60,
    full=10_000,
)
def random_files(trial: Trial) -> Iterator[Finding]:
    seed = trial.draws.randrange(1 << 30)
    yield from in_child(trial.folder, file_cases, trial.folder, seed, trial.times)


def file_cases(
    folder: Path, seed: int, times: int
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """So many files, each with a tokenizer and a unit."""
    os.chdir(folder)
    for k in range(times):
        yield f"file {seed} {k}", partial(attack, random.Random(f"{seed} {k}"))


def attack(draws: random.Random) -> str | None:
    """What is wrong with how random files were prepared."""
    config, unit = tokenizer_of(draws), draws.choice(tuple(Unit))
    contents = [text(draws) for _ in range(draws.choice((1, 1, 1, 3)))]
    held_out = text(draws)
    corpus = corpus_of(contents, held_out)
    with ExitStack() as held, log_lines():
        if draws.random() < 0.6:  # the divisions of large files, in small ones
            limits = {"TARGET_BYTES": draws.randint(1, 99), "LONGEST_BYTES": draws.randint(8, 400)}
            for name, value in limits.items():
                held.enter_context(patch.object(pieces, name, value))
            held.enter_context(patch.object(batch, "BATCH_BYTES", draws.randint(1, 300)))
            held.enter_context(patch.object(pieces, "READ_BYTES", draws.randint(1, 99)))
        try:
            prepared = prepare(corpus, config, unit, Path("cache"), splits=("train", "valid"))
            fault = wrong(prepared, contents, held_out, unit)
            if fault is None:
                again = prepare(corpus, config, unit, Path("cache"), splits=("train", "valid"))
                fault = None if same(prepared, again) else "another time, other tokens"
        except DataError as error:
            fault = unjustified(error, config, [*contents, held_out])
    shutil.rmtree("cache", ignore_errors=True)
    return None if fault is None else f"{config} by {unit.name}: {fault}"


def tokenizer_of(draws: random.Random) -> TokenizerConfig:
    """A configuration of any kind."""
    rare = draws.choice((1, 1, 1, 2, 5))
    return draws.choice(
        (
            ByteConfig(),
            CharConfig(min_count=rare),
            WordConfig(min_count=rare, max_size=draws.choice((None, None, 3, 20))),
            BpeConfig(vocab_size=draws.choice((256, 257, 300, 1000)), sample_bytes=1_000_000),
        )
    )


def corpus_of(contents: list[bytes], held_out: bytes) -> Corpus:
    """The files of a case."""
    for k, content in enumerate([*contents, held_out]):
        Path(str(k)).write_bytes(content)
    train = tuple(Document(Path(str(k))) for k in range(len(contents)))
    other = (Document(Path(str(len(contents)))),)
    return Corpus("odd", train, other, other)


def same(one: Prepared, other: Prepared) -> bool:
    """Whether two preparations gave the same."""
    return all(
        one.stores[name].fingerprint == other.stores[name].fingerprint for name in one.stores
    )


def unjustified(error: DataError, config: TokenizerConfig, contents: list[bytes]) -> str | None:
    """What is wrong with a refusal: none of the files is as it says."""
    for k, content in enumerate(contents):
        if error.cause == f"{k}: invalid UTF-8 at byte offset {_invalid_at(content)}":
            return None if isinstance(config, CharConfig | BpeConfig) else str(error)
        if f"({k}) has no tokens" in error.cause and not content.split(b"\n")[0].split():
            return None if isinstance(config, WordConfig) else str(error)
        start, _, at = error.cause.rpartition(" ")
        if start.startswith(f"{k}: a word longer than ") and at.isdigit():
            word = content[int(at) :].split(None, 1)[0]
            whole = int(at) == 0 or content[int(at) - 1 : int(at)].isspace()
            if whole and len(word) > pieces.LONGEST_BYTES and isinstance(config, WordConfig):
                return None
    blank = not all(content.strip() for content in contents) or not all(contents)
    return None if blank and error.remedy else f"{error.cause} of {contents}"[:2000]


def _invalid_at(content: bytes) -> int | None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def wrong(prepared: Prepared, contents: list[bytes], held_out: bytes, unit: Unit) -> str | None:
    """What the tokens of the two splits are not."""
    tokenizer, stores = prepared.tokenizer, prepared.stores
    told = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    if told.fingerprint != tokenizer.fingerprint:
        return "the tokenizer is another once it was written"
    for name, texts in (("train", contents), ("valid", [held_out])):
        ids = stores[name][:]
        if unit is Unit.document and len(texts) > 1:
            ends = stores[name].unit_ends(0, len(ids)) + 1
            parts = [ids[a:b] for a, b in pairwise([0, *ends])]
            texts_with_tokens = [part for part in texts if len(tokenizer.encode(part))]
            if len(parts) != len(texts_with_tokens):
                return f"{len(parts)} documents instead of {len(texts_with_tokens)}"
        if fault := lost(told, stores[name], ids, texts):
            return f"{name}: {fault}"
    return None


def lost(
    tokenizer: Tokenizer, store: TokenStore, ids: np.ndarray, texts: list[bytes]
) -> str | None:
    """What is not in the tokens, or is not as the counts say."""
    encoded = [tokenizer.encode(part) for part in texts]
    joined, decoded = b"".join(texts), b"".join(map(tokenizer.decode, encoded))
    # The merges of a BPE depend on where a text is divided by line or by force.
    if tokenizer.kind == "bpe" and tokenizer.decode(ids) != joined:
        return f"{tokenizer.decode(ids)[:300]!r} instead of {joined[:300]!r}"
    if tokenizer.kind != "bpe" and not np.array_equal(ids, np.concatenate(encoded)):
        return f"{len(ids)} tokens in pieces are not the {sum(map(len, encoded))} of the whole"
    if store.header.num_bytes != len(joined):
        return f"{store.header.num_bytes} of {len(joined)} bytes counted"
    unknown = sum(map(tokenizer.count_unknown, texts, encoded))
    if store.header.unknown_count != unknown:
        return f"{store.header.unknown_count} of {unknown} unknown tokens counted"
    if (store.lossless_reason() is None) != (decoded == joined):
        return f"{store.lossless_reason()}, but {decoded[:300]!r} of {joined[:300]!r}"
    for part, tokens in zip(texts, encoded, strict=True):
        found = tokenizer.decode(tokens).split()
        if not unknown and b"<eos>" not in part and found != part.split():
            return f"lost words: {found[:50]} of {part[:300]!r}"
    return None
