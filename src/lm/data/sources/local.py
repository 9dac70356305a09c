"""Local files: finding what the user named, telling whether it is what was published."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lm.errors import ConfigError, DataError


def located(field: str, value: str, root: str | None = None) -> Path:
    """The path that `field` names, `~` expanded; relative ones start from `root`.

    Raises:
        ConfigError: it is empty, which would silently mean the working directory.
    """
    for name, text in ((field, value), ("data.root", root)):
        if text is not None and not text.strip():
            raise ConfigError(f"{name} must name a file or folder, got {text!r}", f"Set {name}.")
    path = Path(value).expanduser()
    return path if root is None else Path(root).expanduser() / path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a failure to look at or read `path` into a `DataError` that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", "Check the path and its permissions."
        ) from error


def existing(field: str, value: str) -> Path:
    """The file or folder that `field` names.

    Raises:
        DataError: there is none.
    """
    path = located(field, value)
    with reading(path):
        if not path.exists():
            raise DataError(f"{field}={value} does not exist", f"Set {field} to a file or folder.")
    return path


def size_of(path: Path) -> int:
    """The file's size in bytes."""
    with reading(path):
        return path.stat().st_size


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest in hexadecimal, in bounded memory."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def content_hash(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names and contents, each preceded by its length, so that none run together."""
    total = hashlib.sha256()
    for name, content in files:
        for part in (name.encode(), content):
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
    return total.hexdigest()
