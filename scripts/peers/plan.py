"""What is done to every program, what is asked afterwards, and how the answers are counted."""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.programs import Program


@dataclass(frozen=True)
class Answer:
    """What one repetition showed.

    Attributes:
        held: the questions of the row; None where one does not arise.
        seen: what happened, in a few words that repeat.
        measures: numbers by name.
    """

    held: dict[str, bool | None]
    seen: str = ""
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """What a row works with.

    Attributes:
        folder: empty, and the row's own.
        times: repetitions.
        draws: where all that is random comes from; the same for every program.
    """

    folder: Path
    times: int
    draws: random.Random

    def place(self, name: object) -> Path:
        """A new folder inside."""
        path = self.folder / str(name)
        path.mkdir(parents=True)
        return path


class NotApplicableError(Exception):
    """A row has no meaning for a program; says why."""


Attack = Callable[[Program, Trial], Iterator[Answer]]


@dataclass(frozen=True)
class Row:
    """A fault.

    Attributes:
        asks: the questions by the names that answers use.
        files: it is about files alone: programs that write the same ones need it once.
    """

    key: str
    fault: str
    asks: dict[str, str]
    times: int
    attack: Attack
    files: bool


ROWS: dict[str, Row] = {}


def row(
    key: str, fault: str, times: int, *, files: bool = False, **asks: str
) -> Callable[[Attack], Attack]:
    """Enter the decorated generator as a row."""

    def enter(attack: Attack) -> Attack:
        assert key not in ROWS, key
        ROWS[key] = Row(key, fault, asks, times, attack, files)
        return attack

    return enter


def carry_out(entry: Row, program: Program, folder: Path, times: int) -> dict[str, Any]:
    """Do a row to a program; the cell of the table."""
    if entry.files and program.same_as:
        return {"not_applicable": f"as {program.same_as}"}
    trial = Trial(folder, times, random.Random(f"1 {entry.key}"))
    try:
        answers = list(entry.attack(program, trial))
    except NotApplicableError as error:
        return {"not_applicable": str(error)}
    return cell(list(entry.asks), answers)


def cell(asks: list[str], answers: list[Answer]) -> dict[str, Any]:
    """The counts: of those a question arose for, how many held it."""
    held = {}
    for ask in asks:
        given = [answer.held[ask] for answer in answers if answer.held.get(ask) is not None]
        held[ask] = [sum(map(bool, given)), len(given)]
    names = sorted({name for answer in answers for name in answer.measures})
    measures = {}
    for name in names:
        values = [answer.measures[name] for answer in answers if name in answer.measures]
        measures[name] = {"median": statistics.median(values), "most": max(values)}
    seen = Counter(answer.seen for answer in answers if answer.seen)
    return {
        "tried": len(answers), "held": held, "seen": dict(seen.most_common()), "measures": measures,
    }  # fmt: skip
