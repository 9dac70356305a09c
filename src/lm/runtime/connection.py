"""What is said when another process of a run is gone, or stands still."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm.errors import LmError, ProcessError, Stopped


class LostConnectionError(ProcessError):
    """A connection to another process broke, or nothing came through it in time."""


def as_error(said: dict[str, Any], prefix: str = "") -> LmError | Stopped:
    """The error that another process ended with, by its exit code."""
    cause, remedy = f"{prefix}{said['cause']}", str(said["remedy"])
    if said["code"] == Stopped.code:
        return Stopped(cause, remedy)
    kinds = {kind.code: kind for kind in LmError.__subclasses__()}
    return kinds.get(said["code"], ProcessError)(cause, remedy)


@contextmanager
def connection() -> Iterator[None]:
    """Whatever an exchange raises means that another process is gone, or stands still."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises derives from it
        raise lost_connection(_plain(error)) from error


def lost_connection(cause: str) -> LostConnectionError:
    """What to say of a process that was lost in the middle of a run."""
    return LostConnectionError(
        f"another process of this run was lost: {cause}",
        "See what it said. The last checkpoint is good: continue with resume=, or let"
        " runtime.restarts=3 (torchrun --max-restarts=3) do so.",
    )


def _plain(error: RuntimeError) -> str:
    """What torch says, without the place in its source and its guesses."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*\]\s*", "", first).partition(". This is")[0]
