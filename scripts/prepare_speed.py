"""How fast text becomes tokens, by one process and by two, and in how much memory.

Texts are drawn: words of a Zipf law, as a corpus that was tokenized before has them, and lines of
the same with capitals, punctuation and numbers put to them, as raw text has. Or they are given.
Each line is a process of its own with an empty cache. `all` is from the text to the shards: hash,
vocabulary or merges, tokens; `encode` is the same with a tokenizer that is there. A core's second
is that of the clock of used time, of all processes together, which other work on the machine
disturbs less than the time that passes.

    python scripts/prepare_speed.py
    python scripts/prepare_speed.py --path corpus.txt
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np

from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.tokenizers import TOKENIZERS

WORDS, LETTERS = 50_000, "etaoinshrdlu"
HEADER = """\
| text | MB | tokenizer | processes | all MB/s | MB per core second | encode MB/s | MB per core \
second | peak MB of the first process | of another |
| --- | --: | --- | --: | --: | --: | --: | --: | --: | --: |"""


def write_text(path: Path, megabytes: int, *, raw: bool) -> None:
    """Lines of 20 words; frequent ones are short."""
    draws = np.random.default_rng(0)
    spelled = [_spelled(rank) for rank in range(WORDS)]
    weights = np.cumsum(1 / np.arange(1, WORDS + 1))
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1_000_000:
            ids = np.searchsorted(weights, draws.random(100_000) * weights[-1])
            words = [spelled[k] for k in ids.tolist()]
            if raw:
                marks = draws.integers(0, 40, len(words)).tolist()
                words = list(map(_marked, words, marks))
            lines = (" ".join(words[k : k + 20]) for k in range(0, len(words), 20))
            file.write("\n".join(lines) + "\n")


def _spelled(rank: int) -> str:
    letters = LETTERS[rank % 12]
    while rank := rank // 12:
        letters += LETTERS[rank % 12]
    return letters


def _marked(word: str, mark: int) -> str:
    if mark < 6:
        return f"{word}{',.;:?)'[mark]}"
    return {6: word.title(), 7: f"“{word}”", 8: f"{word}'s", 9: str(len(word) * 1987)}.get(
        mark, word
    )


def measure(path: Path, kind: str, processes: int) -> dict[str, float]:
    """One line, in this process."""
    megabytes = path.stat().st_size / 1e6
    corpus = Corpus("text", (Document(path),), (), ())
    with tempfile.TemporaryDirectory() as folder, _peak() as peak:
        begun, used = perf_counter(), _used()
        prepared = prepare(corpus, TOKENIZERS[kind](), Unit.stream, Path(folder, "all"),
                           splits=["train"], workers=processes)  # fmt: skip
        between, used_between = perf_counter(), _used()
        prepare(corpus, prepared.tokenizer, Unit.stream, Path(folder, "encode"),
                splits=["train"], workers=processes)  # fmt: skip
        end, used_end = perf_counter(), _used()
    return {
        "all": megabytes / (between - begun),
        "all_core": megabytes / (used_between - used),
        "encode": megabytes / (end - between),
        "encode_core": megabytes / (used_end - used_between),
        "peak": peak[0],
        "peak_other": _peak_of_others(),
    }


def _used() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@contextmanager
def _peak() -> Iterator[list[float]]:
    """The most memory of this process that is no file's, in megabytes, looked at now and then."""
    most, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            most[0] = max(most[0], int(status.split("RssAnon:")[1].split()[0]) / 1024)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def _peak_of_others() -> float:
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--path", type=Path, help="a text of yours in place of the drawn ones")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--tokenizers", nargs="+", default=["word", "bpe"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        path, kind, processes = options.one
        print(json.dumps(measure(Path(path), kind, int(processes))))
        return
    import torch
    from benchmarks.hardware import machine

    on = ", ".join(f"{key} {value}" for key, value in machine(torch.device("cpu")).items())
    print(f"{datetime.date.today()}: {on}; load before: {os.getloadavg()[0]:.1f}\n\n{HEADER}")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _texts(options, Path(folder)):
            for kind in options.tokenizers:
                for processes in (1, 2):
                    _print_line(name, path, kind, processes)
            if options.path is None:
                path.unlink()


def _texts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    if options.path is not None:
        yield options.path.name, options.path
        return
    for megabytes in options.megabytes:
        for name in ("tokenized", "raw"):
            write_text(folder / name, megabytes, raw=name == "raw")
            yield name, folder / name


def _print_line(name: str, path: Path, kind: str, processes: int) -> None:
    command = [sys.executable, __file__, "--one", str(path), kind, str(processes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    speeds = [f"{found[key]:.1f}" for key in ("all", "all_core", "encode", "encode_core")]
    memory = [f"{found['peak']:.0f}", f"{found['peak_other']:.0f}" if processes > 1 else ""]
    cells = [name, f"{path.stat().st_size / 1e6:.0f}", kind, str(processes), *speeds, *memory]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
