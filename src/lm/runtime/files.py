"""Files that are whole or absent: write beside, sync, rename, sync the folder."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lm.errors import StorageError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
}


def default_cache() -> Path:
    """The folder of all caches, not created yet: $LM_CACHE, else `lm` in the user's."""
    chosen = os.environ.get("LM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lm"


def sync(path: Path) -> None:
    """fsync a file or, where the system has it, a folder."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any]:
    """An object that we wrote ourselves.

    Raises:
        OSError: unreadable.
        ValueError: not JSON.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file so that a reader sees the old or the new content, never a part."""
    with file_atomically(path) as file:
        file.write(content)


@contextmanager
def file_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` at the end; on an exception nothing is left behind."""
    beside = path.with_name(f".put-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def folder_atomically(target: Path) -> Iterator[Path]:
    """A temporary sibling to fill, which becomes `target` at the end, replacing what is there.

    The files must have been synced by the writer. On an exception nothing is left behind.
    """
    beside = target.with_name(f".new-{target.name}-{uuid.uuid4().hex[:8]}")
    beside.mkdir(parents=True)
    try:
        yield beside
        put_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def put_folder(beside: Path, target: Path) -> None:
    """Let a filled sibling, whose files are synced, become `target`, replacing what is there."""
    sync(beside)
    if target.exists():
        # A folder cannot be renamed over another. The old one steps aside under a name that
        # `restore_interrupted` knows, should we die between the two renames.
        aside = target.with_name(f".old-{target.name}")
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
        beside.rename(target)
        sync(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        beside.rename(target)
        sync(target.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder, as far as the system lets us, at no moment leaving a part under its name."""
    aside = path.with_name(f".gone-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.rename(aside)
    except OSError:  # a full disk may refuse a new name, and lets go of an old one
        aside = path
    shutil.rmtree(aside, ignore_errors=True)


def restore_interrupted(parent: Path) -> None:
    """Clean up after a process that died inside one of the functions above."""
    for aside in parent.glob(".old-*"):
        target = parent / aside.name.removeprefix(".old-")
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)
    for beside in (*parent.glob(".new-*"), *parent.glob(".gone-*")):
        shutil.rmtree(beside, ignore_errors=True)
    for part in parent.glob(".put-*"):
        part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn a full disk or a read-only folder into an error for the user.

    Args:
        action: what was being done, such as `save runs/a/checkpoints`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            remedy = "Free some space on that disk or choose another folder."
        elif error.errno in NO_ACCESS:
            remedy = "Check the path and its permissions, or choose another folder."
        else:
            raise
        raise StorageError(f"cannot {action}: {error.strerror}", remedy) from error
