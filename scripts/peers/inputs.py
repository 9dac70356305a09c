"""Rows of bad input, and of two runs in one place."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers.host import Process
from peers.plan import Answer, Trial, row
from peers.programs import Program

Case = Callable[[Program, Path], Process]


def _with(**settings: Any) -> Case:
    """A setting out of range."""
    return lambda program, place: program.train(place, settings)


def _text(content: bytes | None) -> Case:
    """Another training text, or none."""

    def start(program: Program, place: Path) -> Process:
        data = place / "data"
        data.mkdir()
        for path in program.data.iterdir():
            (data / path.name).write_bytes(path.read_bytes())
        if content is None:
            (data / "train.txt").unlink()
        else:
            (data / "train.txt").write_bytes(content)
        return program.train(place, data=data)

    return start


def _misplaced(program: Program, place: Path) -> Process:
    (place / "file").write_text("no folder")
    return program.train(place, extra=program.misplaced)


CASES: dict[str, Case] = {
    "empty text": _text(b""),
    "text of three words": _text(b"w0 w1 w2\n"),
    "no such text": _text(None),
    "option misspelt": lambda program, place: program.train(place, extra=program.misspelt),
    "lr nan": _with(lr="nan"),
    "lr -1": _with(lr=-1),
    "window 0": _with(window=0),
    "streams 0": _with(streams=0),
    "more streams than tokens": _with(streams=1_000_000),
    "dropout 1.5": _with(dropout=1.5),
    "size 0": _with(size=0),
    "output below a file": _misplaced,
    "no such checkpoint": lambda program, place: program.use(place / "none", place),
}


@row(
    "input", "bad input, one command each", 1,
    files=True,
    refused="refused: the exit code is not 0",
    early="before the first step",
    clean="without a traceback",
)  # fmt: skip
def bad_input(program: Program, trial: Trial) -> Iterator[Answer]:
    for number, (name, start) in enumerate(CASES.items()):
        process = start(program, trial.place(number))
        refused = process.wait() != 0
        held: dict[str, bool | None] = {
            "refused": refused,
            "early": refused and process.steps == 0,
            "clean": refused and not process.traceback,
        }
        yield Answer(held, "" if refused else f"accepted: {name}")


@row(
    "place", "two runs with the same output place", 5,
    files=True,
    after="one after the other: both results are there",
    together="at the same time: both results are there",
)  # fmt: skip
def one_place(program: Program, trial: Trial) -> Iterator[Answer]:
    warm = trial.place("warm")
    assert program.train(warm, {"epochs": 1}).wait() == 0
    seeds = [{"seed": 2, "epochs": 1}, {"seed": 3, "epochs": 1}]
    alone = [trial.place(seed["seed"]) for seed in seeds]
    for place, settings in zip(alone, seeds, strict=True):
        assert program.train(place, settings).wait() == 0
    expected = {digest for place in alone for digest in program.digests(place)}
    for k in range(trial.times):
        place = trial.place(f"after-{k}")
        for settings in seeds:
            program.train(place, settings).wait()
        after = set(program.digests(place)) == expected
        place = trial.place(f"together-{k}")
        codes = [process.wait() for process in [program.train(place, s) for s in seeds]]
        together = set(program.digests(place)) == expected
        yield Answer({"after": after, "together": together}, f"exits {codes[0]}, {codes[1]}")
