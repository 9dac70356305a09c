"""What a user can get wrong or run into, one class per exit code.

A user's mistake is one line of cause and one line of remedy, never a traceback; `cli.py` prints
them and exits with `code`. Our own bugs stay `assert` and plain exceptions.
"""

from typing import ClassVar

_LONGEST = 2000


def on_one_line(text: str) -> str:
    """The text without control characters: names in a file may be meant for the terminal."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} …"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LmError(Exception):
    """Base of all errors for the user: `cause` says what is wrong, `remedy` how to mend it."""

    code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}" if self.remedy else self.cause


class ConfigError(LmError):
    """The configuration or the command line is wrong."""

    code = 2


class DataError(LmError):
    """A corpus, tokenizer or token file is missing, too short or damaged."""

    code = 3


class CheckpointError(LmError):
    """A checkpoint is damaged, of another kind, or belongs to other data."""

    code = 4


class NumericError(LmError):
    """Training became non-finite and stayed so."""

    code = 5


class StorageError(LmError):
    """Disk full, read-only, or a directory that another run owns."""

    code = 6


class OutOfMemoryError(LmError):
    """The device or the machine ran out of memory."""

    code = 7


class ProcessError(LmError):
    """Another process of the same run died, hangs or differs."""

    code = 9


class ReproductionError(LmError):
    """A recipe was run to its end and did not give the published value."""

    code = 8


class ResumeError(LmError):
    """An interrupted run was continued and did not come to what the uninterrupted one did."""

    code = 8


class AuditError(LmError):
    """A model failed a check, so that its numbers would not mean what they say."""

    code = 8


class ExportError(LmError):
    """An exported graph does not compute what its model does."""

    code = 8


class Stopped(BaseException):
    """A signal asked the run to stop and it saved first.

    Not an `Exception`: a sweep must end with it rather than go on to its next job.
    """

    code: ClassVar[int] = 75

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
