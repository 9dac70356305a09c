"""Reading what a stranger may have written: within limits, strictly, and only the type that is due.

A checkpoint's manifest proves that its files belong together, not who made them. So each value is
checked where it is read, before anything is allocated or done by it, and whatever is wrong with it
is a `CheckpointError` that names it.
"""

import json
import math
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lm.errors import CheckpointError, LmError, on_one_line

REMEDY = "Use another checkpoint of the run (checkpoint=last, best or step-…)."
# More than any count needs; Python itself gives up at 4,300.
_MAX_DIGITS = 20
_MAX_COUNT = 1 << 62
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def read_file(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        CheckpointError: it is not there, unreadable, larger, or a link, device or pipe, which
            could have no end.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{path} is missing or no plain file", REMEDY)
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", REMEDY) from error
    if len(content) > limit:
        raise CheckpointError(f"{path} is larger than {limit:,} bytes", REMEDY)
    return content


def read_text(path: Path, limit: int) -> str:
    """A regular file in UTF-8 of at most `limit` bytes."""
    try:
        return read_file(path, limit).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8", REMEDY) from error


def read_json_object(path: Path, limit: int) -> dict[str, Any]:
    """A regular file of at most `limit` bytes that holds a JSON object."""
    data = parse_json(read_file(path, limit), path)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object", REMEDY)
    return data


def parse_json(content: bytes, name: object) -> Any:
    """JSON as the standard has it: without NaN and infinities, each key once.

    Args:
        name: of the file, for the message.

    Raises:
        CheckpointError: it is none, is nested too deep, or holds a number out of range.
    """
    try:
        return json.loads(
            content.decode(),
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=_no_number,
            object_pairs_hook=_each_once,
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} cannot be read: {first_line(error)}", REMEDY) from error


def _whole_number(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:_MAX_DIGITS]} is out of range")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is given twice")
    return content


def as_object(value: Any, name: str) -> dict[str, Any]:
    """A JSON object."""
    return value if isinstance(value, dict) else _refuse(name, "an object", value)


def as_list(value: Any, name: str) -> list[Any]:
    """A JSON array."""
    return value if isinstance(value, list) else _refuse(name, "a list", value)


def as_count(value: Any, name: str) -> int:
    """A whole number from 0 on; `true` is none."""
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        _refuse(name, "a whole number >= 0", value)
    return value


def as_number(value: Any, name: str, *, least: float = -math.inf) -> float:
    """A finite number, from `least` on."""
    if type(value) not in (int, float) or not math.isfinite(value) or value < least:
        rule = "a finite number" if least == -math.inf else f"a finite number >= {least:g}"
        _refuse(name, rule, value)
    return float(value)


def as_flag(value: Any, name: str) -> bool:
    """True or false."""
    return value if isinstance(value, bool) else _refuse(name, "true or false", value)


def as_text(value: Any, name: str) -> str:
    """A string."""
    return value if isinstance(value, str) else _refuse(name, "a string", value)


def as_texts(value: Any, name: str) -> dict[str, str]:
    """An object whose values are strings."""
    return {key: as_text(text, f"{name}.{key}") for key, text in as_object(value, name).items()}


def _refuse(name: str, rule: str, value: Any) -> NoReturn:
    raise CheckpointError(f"the checkpoint's {name} must be {rule}, got {shown(value)}", REMEDY)


def shown(value: Any) -> str:
    """A value for a message: on one line, and no longer than that."""
    return _SHORT.repr(value)


def check_names(found: set[str], wanted: set[str], what: str) -> None:
    """Refuse names that are missing or too many.

    Raises:
        CheckpointError: naming the first.
    """
    for name in sorted(found ^ wanted):
        side = "lacks" if name in wanted else "holds the unknown"
        raise CheckpointError(f"the checkpoint's {what} {side} {name}", REMEDY)


@contextmanager
def contained(name: object) -> Iterator[None]:
    """Turn whatever a library raises at a stranger's bytes into a `CheckpointError`.

    What can be checked is checked beforehand; but the parsers of others raise what they like, and
    a panic in Rust (safetensors, tokenizers) is not even an `Exception`.

    Args:
        name: of what is read, for the message.
    """
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except LmError as error:  # a value out of range, which nobody typed
        raise CheckpointError(f"{name}: {error.cause}", REMEDY) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # a signal, or the end of the process
        raise CheckpointError(f"{name} cannot be read: {first_line(error)}", REMEDY) from error


def first_line(error: BaseException) -> str:
    """What an exception says, as far as one line goes."""
    return on_one_line(next(iter(str(error).splitlines()), type(error).__name__))
