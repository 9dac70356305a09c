"""Preparing a text, and starting up."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import torch

from benchmarks import textbook
from benchmarks.options import Options
from benchmarks.result import Outcome, check_equal
from benchmarks.sides import zipf_tokens
from benchmarks.timing import WHOLE, Budget, Variant, compared, interleave
from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.tokenizers.word import WordConfig

_TEXT_BYTES = 20_000_000
_WORDS = 50_000
_LINE = 20
_STARTS = 7

_HOST = torch.device("cpu")


def preparation(options: Options) -> Iterator[Outcome]:
    """From a text file to the tokens of a word vocabulary counted on it, nothing cached."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text"
        megabytes = _write_text(text, 20_000 if options.smoke else _TEXT_BYTES) / 1e6
        corpus = Corpus("benchmark", (Document(text),), (), ())
        fresh = map(str, count())

        def ours() -> int:
            cache = folder / next(fresh)
            prepared = prepare(corpus, WordConfig(), Unit.stream, cache, splits=("train",))
            return len(prepared.stores["train"])

        theirs = partial(textbook.prepare, text)
        check_equal("preparation: the number of tokens", ours(), len(theirs()), 0.0)
        variants = {"ours": Variant(ours), "textbook": Variant(theirs)}
        timings = interleave(variants, options.budget, _HOST, WHOLE)
        yield compared("preparation", "MB/s", timings, (megabytes, megabytes))


def _write_text(path: Path, size: int) -> int:
    """Lines of words with the frequencies of words; frequent ones are short. Its bytes."""
    ids = zipf_tokens(size // 6, _WORDS).tolist()
    words = [_spelled(rank) for rank in range(_WORDS)]
    with path.open("w", encoding="utf-8") as file:
        for begin in range(0, len(ids), _LINE):
            file.write(" ".join([words[i] for i in ids[begin : begin + _LINE]]) + "\n")
    return path.stat().st_size


def _spelled(rank: int) -> str:
    """A word of its own for each number: two letters a digit."""
    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    word = ""
    while True:
        rank, digit = divmod(rank, len(syllables))
        word += syllables[digit]
        if rank == 0:
            return word


def start_up(options: Options) -> Iterator[Outcome]:
    """Against `import torch`, which any training script waits for first."""
    commands = {
        "start_up_help": ["-m", "lm", "--help"],
        "start_up_import": ["-c", "import lm, torch"],
        "textbook": ["-c", "import torch"],
    }
    variants = {name: Variant(partial(_python, words)) for name, words in commands.items()}
    budget = Budget(min(options.steps, _STARTS), options.seconds)
    turns = replace(WHOLE, warm_up=0) if options.smoke else WHOLE
    timings = interleave(variants, budget, _HOST, turns)
    theirs = timings.pop("textbook")
    for name, ours in timings.items():
        yield compared(name, "s", {"ours": ours, "textbook": theirs})


def _python(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
