"""The row of one endless line: I4."""

import json
import os
import random
import resource
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from bad_text_commands import train
from fault_plan import Figure, Finding, Trial, row
from processes import Child

from lm.cli import main

MEGABYTE = 1 << 20
WARM_MEGABYTES = 2
CAPS = {"byte": 64, "char": 64, "word": 96, "bpe": 160}
"""Megabytes of memory beyond what a line of two megabytes takes, however long the line is."""
# Kind of tokenizer, whether there are words in the line, what is expected.
CASES = [
    ("char", True, 0), ("word", False, 3), ("word", True, 0), ("byte", True, 0),
    ("byte", False, 0), ("char", False, 0), ("bpe", True, 0), ("bpe", False, 0),
]  # fmt: skip


@row(
    "I4",
    "a text of one line without an end, of as many megabytes as repetitions: words, or one word",
    "trained on, or exit 3 with file and offset; at most 64 MB (words 96, BPE 160) more than for a"
    f" line of {WARM_MEGABYTES} MB",
    Figure.input,
    few=8,
    full=1000,
)
def one_line(trial: Trial) -> Iterator[Finding]:
    for kind, words, code in CASES if trial.times > 100 else CASES[:2]:
        folder = trial.place(f"{kind}-{'words' if words else 'one-word'}")
        child = Child(folder / "log", measured, folder, kind, words, trial.times)
        ended = child.wait(3600)
        what = f"{trial.times} MB of {'words' if words else 'one word'} as {kind}"
        if ended:
            yield Finding(False, f"{what}: {child.said()[-1500:]}")
            continue
        found = json.loads((folder / "found.json").read_text())
        ok = found["code"] == code and found["grown"] <= CAPS[kind] * MEGABYTE
        if code:
            ok &= "line.txt: a word longer than 1048576 bytes at byte offset 0" in found["said"]
        measures = {"grown_megabytes": found["grown"] / MEGABYTE, "seconds": found["seconds"]}
        yield Finding(ok, f"{what}: {found}"[:1500], measures)


def measured(folder: Path, kind: str, words: bool, megabytes: int) -> int:
    """Train on a short line, then on a long one, freshly and from the cache; say what it took."""
    os.chdir(folder)
    patch.object(os, "fsync").start()  # no power is cut here
    code, said, peak, seconds = 0, "", 0, 0.0
    command = train("line.txt", f"tokenizer={kind}", "runtime.cache=cache")
    if kind == "bpe":
        command += ["tokenizer.vocab_size=400", "tokenizer.sample_bytes=1000000"]
    fractions = [f"data.{name}_fraction={0.01 / megabytes}" for name in ("valid", "test")]
    for size in (WARM_MEGABYTES, megabytes, megabytes):
        peak = peak or (_peak() if size == megabytes else 0)
        if not seconds:
            _write(Path("line.txt"), words, size)
        started = time.perf_counter()
        with redirect_stderr(StringIO()) as errors:
            code = main([*command, *fractions])
        said = errors.getvalue()[-300:]
        seconds += (time.perf_counter() - started) * (size == megabytes)
    Path("line.txt").unlink()
    found = {"code": code, "said": said, "grown": _peak() - peak, "seconds": seconds}
    Path("found.json").write_text(json.dumps(found))
    return 0


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _write(path: Path, words: bool, megabytes: int) -> None:
    """Words of a vocabulary of twenty thousand, or letters of one word; no line end."""
    draws = random.Random(1)
    vocabulary = [b"%x" % k for k in range(20_000)]
    some = b" ".join(draws.choices(vocabulary, k=MEGABYTE // 4))
    if not words:
        some = bytes(draws.choices(b"etaoinshrdlucmfwypvbgkqjxz", k=MEGABYTE))
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(some[:MEGABYTE])
