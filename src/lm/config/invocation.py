"""How the command at hand was called: what a run directory records beside the parsed config."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from lm.config.overrides import key_of
from lm.runtime.processes import ALONE, Processes


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a command.

    Attributes:
        config: the composed configuration, interpolations unresolved.
        overrides: the command line's, in Hydra's grammar.
        job_directory: where the run belongs if that is settled, as in a multirun; not created yet.
        swept: names of what a multirun varies; none for a single run.
        processes: that carry it out together.
    """

    config: DictConfig
    overrides: tuple[str, ...] = ()
    job_directory: Path | None = None
    swept: frozenset[str] = frozenset()
    processes: Processes = ALONE

    @property
    def given(self) -> frozenset[str]:
        """Names of what the command line says."""
        return frozenset(map(key_of, self.overrides))


_current: ContextVar[Invocation | None] = ContextVar("invocation", default=None)


def invocation() -> Invocation | None:
    """The call that is running; None when a command's `run` was called directly."""
    return _current.get()


def job_directory() -> Path | None:
    """The directory that the run has to create; None leaves the choice to it."""
    current = _current.get()
    return None if current is None else current.job_directory


@contextmanager
def invoking(call: Invocation) -> Iterator[None]:
    """Make `call` the current invocation."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)
