"""The fault campaign: what is done to a run, what must hold afterwards, and the tally of both.

A row of the plan is a generator that does its fault again and again and yields what it found each
time. The tests run few repetitions, `scripts/fault_campaign.py` as many as the plan asks for.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from lm.errors import LmError


class Figure(Enum):
    """What the repetitions of a row are published as."""

    fault = "faults survived"
    resume = "exact resumes"
    corruption = "corruptions detected"
    payload = "payloads not executed"
    input = "bad inputs answered with the right exit code"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one repetition showed.

    Attributes:
        ok: the row's criterion holds.
        what: what was done; where it does not hold, what was seen instead.
        measures: numbers by name, such as `recovery_seconds` and `steps_lost`.
    """

    ok: bool
    what: str
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a row works with.

    Attributes:
        folder: empty, and the row's own.
        times: how many repetitions to do, of those that are drawn or counted.
        draws: where all that is random comes from.
    """

    folder: Path
    times: int
    draws: random.Random

    def place(self, name: object) -> Path:
        """A new folder inside."""
        path = self.folder / str(name)
        path.mkdir(parents=True)
        return path


Attack = Callable[[Trial], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the plan.

    Attributes:
        key: its name in the plan, such as `R2`.
        few, full: repetitions in the default tests, 0 where it takes too long for them, and in the
            campaign.
    """

    key: str
    fault: str
    criterion: str
    figure: Figure
    few: int
    full: int
    attack: Attack


@dataclass(frozen=True, slots=True)
class Tally:
    """What the repetitions of a row came to."""

    row: Row
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def failures(self) -> list[str]:
        """What went wrong, in the order it did."""
        return [finding.what for finding in self.findings if not finding.ok]

    def measured(self, name: str) -> list[float]:
        """All values of a measure."""
        return [found.measures[name] for found in self.findings if name in found.measures]


ROWS: dict[str, Row] = {}


def row(
    key: str, fault: str, criterion: str, figure: Figure, *, few: int, full: int
) -> Callable[[Attack], Attack]:
    """Enter the decorated generator as a row."""

    def enter(attack: Attack) -> Attack:
        assert key not in ROWS, key
        ROWS[key] = Row(key, fault, criterion, figure, few, full, attack)
        return attack

    return enter


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """What `lm` logs meanwhile, which is shown nowhere else."""
    logger, lines = logging.getLogger("lm"), list[str]()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, propagate = Collector(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def carry_out(entry: Row, folder: Path, times: int, seed: int = 1) -> Tally:
    """Do a row's fault `times` times; an error that it did not expect is a failure, its last."""
    started = time.perf_counter()
    trial = Trial(folder, times, random.Random(f"{seed} {entry.key}"))
    findings = []
    try:
        findings.extend(entry.attack(trial))
    except (LmError, TimeoutError) as error:
        findings.append(Finding(False, f"{type(error).__name__}: {error}"))
    assert findings, f"{entry.key} found nothing"
    return Tally(entry, tuple(findings), time.perf_counter() - started)
