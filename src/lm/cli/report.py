"""From an exception to an exit code and two lines: what is wrong, and how to mend it."""

import errno
import os
import sys
import traceback

from lm.errors import LmError, OutOfMemoryError, Stopped, StorageError, on_one_line
from lm.runtime.files import NO_ACCESS, NO_ROOM

INTERRUPTED = 130
BROKEN_PIPE = 141
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
_LESS_MEMORY = {
    "prepare": "Lower workers, tokenizer.max_size or tokenizer.sample_bytes.",
    "evaluate": "Lower window, streams or cache.window, or use another runtime.device.",
    "export": "Free some memory: the weights have to fit several times.",
    "generate": "Lower num_samples, or use another runtime.device.",
    "score": "Lower window, or use another runtime.device.",
    "import": "Free some memory: the weights have to fit.",
}
_LESS_IN_TRAINING = (
    "Lower trainer.batch_size, trainer.window, trainer.valid_streams or model.hidden_size, or set"
    " trainer.accumulate=2; for many words model.head=adaptive or model.sampled.words=4000."
)


def report(error: BaseException, job: str = "", verb: str = "train") -> int:
    """Say on standard error what happened, and give the exit code.

    Args:
        job: which job of a multirun failed.
        verb: what was run.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("lm: interrupted\n")
        return INTERRUPTED
    known = as_user_error(error, verb)
    if known is None or os.environ.get("LM_TRACEBACK") == "1":
        traceback.print_exception(error)
    if known is None:
        sys.stderr.write(
            f"lm: error: {job}{type(error).__name__}: {error}\n"
            "  This is a bug in lm; please report it with the lines above.\n"
        )
        return LmError.code
    said = "" if isinstance(known, Stopped) else "error: "
    remedy = f"  {on_one_line(known.remedy)}\n" if known.remedy else ""
    sys.stderr.write(f"lm: {said}{job}{on_one_line(known.cause)}\n{remedy}")
    return known.code


def named(error: Exception, job: str, verb: str) -> Exception:
    """The error with the job that it is of, for another process to report."""
    known = as_user_error(error, verb)
    return (
        type(known)(f"{job}: {known.cause}", known.remedy) if isinstance(known, LmError) else error
    )


def as_user_error(error: BaseException, verb: str = "train") -> LmError | Stopped | None:
    """The error in the user's terms; None for a bug of ours."""
    if isinstance(error, LmError | Stopped):
        return error
    if isinstance(error, OSError) and error.errno in NO_ROOM | NO_ACCESS:
        place = f" {error.filename}" if error.filename else ""
        return StorageError(
            f"cannot write{place}: {error.strerror}",
            "Free some space, or choose a writable folder with runs= or runtime.cache=.",
        )
    if _is_out_of_memory(error):
        first = str(error).strip().splitlines() or ["the machine ran out of memory"]
        return OutOfMemoryError(
            f"out of memory: {first[0]}",
            _LESS_MEMORY.get(verb, _LESS_IN_TRAINING),
        )
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's own OutOfMemoryError is a RuntimeError that says so too.
    text = str(error).lower()
    if isinstance(error, OSError):  # of a file that is to be mapped
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _NO_MEMORY)
    )


def _silence_stdout() -> None:
    """Keep the interpreter from flushing into the closed pipe once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
