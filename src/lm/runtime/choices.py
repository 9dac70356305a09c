"""Measured choices: which of several right ways is fastest here, asked once and then kept.

A choice changes the last bits of the numbers, so it must not flip from run to run: it is kept in a
file of this machine, written into every checkpoint and taken from there on resume.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from lm.errors import StorageError
from lm.runtime.files import write_atomically
from lm.runtime.lock import exclusive
from lm.runtime.messages import GoneError
from lm.runtime.processes import ALONE, Processes

log = logging.getLogger(__name__)

_ROUNDS = 5
_SECONDS = 0.5


class Choices:
    """Names of the chosen candidates by question.

    Attributes:
        taken: the choices that this run uses.
    """

    def __init__(
        self,
        file: Path | None = None,
        machine: Mapping[str, str | int] = {},
        processes: Processes = ALONE,
    ) -> None:
        """Nothing is measured yet.

        Args:
            file: remembers choices from run to run; None keeps them to this object.
            machine: what the answers depend on.
            processes: take the same choices: whichever of them asks first measures.
        """
        self.taken: dict[str, str] = {}
        self._of_all: dict[str, str] = {}
        self._file = file
        self._processes = processes
        self._machine = " ".join(str(value) for value in machine.values())

    def fastest(self, question: str, candidates: Mapping[str, Callable[[], object]]) -> str:
        """The name of the fastest candidate; measured only if nobody has asked before.

        Args:
            candidates: what to time, by name; the first is the one to beat: another must be 5 %
                faster to be chosen.
        """
        taken = self.taken.get(question)
        if taken is not None and taken in candidates:  # from the second step on, without the file
            return taken
        self.taken[question] = chosen = self._agreed(question, candidates)
        return chosen

    def taken_by_all(self) -> dict[str, str]:
        """What the processes have taken: one with fewer streams may have asked something else."""
        if self._processes.alone:
            return dict(self.taken)
        # Whoever holds them may be gone when a run that stops is saved.
        with suppress(RuntimeError):
            self._of_all = dict(self._processes.messages.part("choices").collected())
        return {**self.taken, **self._of_all}

    def _agreed(self, question: str, candidates: Mapping[str, Callable[[], object]]) -> str:
        """The choice of the process that asks first."""
        if self._processes.alone:
            return self._settled(question, candidates)
        try:
            return self._owners(question, candidates)
        except (RuntimeError, GoneError):
            # Whoever held the job together is gone. All will stop after this step, and save it.
            return self._settled(question, candidates)

    def _owners(self, question: str, candidates: Mapping[str, Callable[[], object]]) -> str:
        said, rank = self._processes.messages.part("choices"), self._processes.rank
        owner = said.claimed_by(question, rank)
        if owner != rank:
            return str(said.await_(question, of=owner, look=self._processes.watch()))
        chosen = self._settled(question, candidates)
        said.put(question, chosen)
        said.collect([question, chosen])
        return chosen

    def _settled(self, question: str, candidates: Mapping[str, Callable[[], object]]) -> str:
        """The remembered choice, or a measured one."""
        chosen = self._remembered().get(question)
        if chosen is None or chosen not in candidates:
            chosen = _measure(candidates)
            log.info("measured: %s is the fastest for %s", chosen, question)
            self._remember(question, chosen)
        return chosen

    def _remembered(self) -> dict[str, str]:
        table = self._read().get(self._machine)
        return table if isinstance(table, dict) else {}

    def _remember(self, question: str, name: str) -> None:
        if self._file is None:
            return
        try:
            with exclusive(self._file):
                table = {**self._read(), self._machine: {**self._remembered(), question: name}}
                write_atomically(self._file, json.dumps(table, indent=1).encode())
        except (OSError, StorageError) as error:  # then the next run measures again
            log.debug("measured choices were not kept: %s", error)

    def _read(self) -> dict[str, object]:
        """The file's table; a damaged file counts as empty, since all can be measured again."""
        if self._file is None or not self._file.exists():
            return {}
        try:
            table = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return table if isinstance(table, dict) else {}


def _measure(candidates: Mapping[str, Callable[[], object]]) -> str:
    """Interleaved after one warm-up each, compared by their least disturbed times."""
    able = {name: run for name, run in candidates.items() if _runs(name, run)}
    # If none runs, the first is to say why when it is used.
    first, *others = able or list(candidates)[:1]
    if not others:
        return first
    seconds: dict[str, list[float]] = {name: [] for name in able}
    begin = time.perf_counter()
    for _ in range(_ROUNDS):
        for name, run in able.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
        if time.perf_counter() - begin > _SECONDS * len(able):
            break
    least = {name: min(values) for name, values in seconds.items()}
    best = min(others, key=least.__getitem__)
    return best if least[best] < 0.95 * least[first] else first


def _runs(name: str, run: Callable[[], object]) -> bool:
    """Whether a candidate runs at all: a library may lack a kernel for this machine."""
    try:
        run()
    except RuntimeError as error:
        log.debug("%s cannot be used: %s", name, error)
        return False
    return True
