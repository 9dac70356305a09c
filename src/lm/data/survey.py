"""How long a text is and what is in it: read once, and for large files remembered.

What is remembered goes by the files' names, sizes, numbers and times; a file that was touched is
read again, and so is one that was changed so lately that its times might not tell.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lm.data.corpus import Document
from lm.data.progress import Progress
from lm.errors import DataError
from lm.runtime.files import read_json, storage_errors, write_atomically

# Less is read within a blink.
REMEMBERED_BYTES = 1 << 26
# The coarsest clock of a file system in use ticks every two seconds.
_SETTLED_SECONDS = 3.0

_REMEDY = "Check the path and its permissions."


class Survey(NamedTuple):
    """What is known of a text that was read.

    Attributes:
        num_bytes: of all documents, unpacked.
        content: hash of the documents' hashes: moving a boundary between them changes it.
    """

    num_bytes: int
    content: str


class _Files(NamedTuple):
    """What the file system says of some documents."""

    identity: str
    num_bytes: int
    changed: float


_surveyed: dict[str, Survey] = {}
"""Of texts whose length only reading tells, and of those that are remembered."""


def size(documents: Sequence[Document]) -> int:
    """Bytes of all documents together.

    Raises:
        DataError: a file is missing, or damaged.
    """
    try:
        sizes = [document.size for document in documents]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}", _REMEDY) from error
    known = [number for number in sizes if number is not None]
    return sum(known) if len(known) == len(sizes) else survey(documents).num_bytes


def survey(documents: Sequence[Document], memory: Path | None = None) -> Survey:
    """Read the documents, unless that was done before.

    Args:
        memory: the folder where large ones are remembered; None is for this process only.

    Raises:
        DataError: a file is missing, or damaged.
        StorageError: the folder cannot be written.
    """
    files = _look_at(documents)
    path = None if memory is None else memory / f"{files.identity}.json"
    if (known := _surveyed.get(files.identity)) is not None:
        return known
    if (known := _remembered(path)) is not None:
        _surveyed[files.identity] = known
        return known
    settled = time.time() - files.changed > _SETTLED_SECONDS
    found = _read(documents, files.num_bytes)
    packed = any(document.size is None for document in documents)
    if _look_at(documents) != files or (not packed and found.num_bytes != files.num_bytes):
        raise DataError(
            f"{documents[0].path}, or a file of the same split, changed while they were read",
            "Start again when nothing writes to them.",
        )
    if packed:
        _surveyed[files.identity] = found
    if path is not None and settled and files.num_bytes >= REMEMBERED_BYTES:
        with storage_errors(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(found._asdict()).encode())
    return found


def forget(documents: Sequence[Document], memory: Path) -> None:
    """Read them anew the next time: they were not what was remembered."""
    identity = _look_at(documents).identity
    _surveyed.pop(identity, None)
    (memory / f"{identity}.json").unlink(missing_ok=True)


def _remembered(path: Path | None) -> Survey | None:
    if path is None or not path.exists():
        return None
    try:
        found = Survey(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None
    return found if type(found.num_bytes) is int and isinstance(found.content, str) else None


def _look_at(documents: Sequence[Document]) -> _Files:
    digest, num_bytes, changed = hashlib.sha256(), 0, 0.0
    seen: dict[Path, os.stat_result] = {}
    for document in documents:
        path = document.path
        try:
            found = seen.get(path) or path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", _REMEDY) from error
        seen[path] = found
        stop = found.st_size if document.stop is None else document.stop
        num_bytes += stop - document.start
        # The time of change cannot be set back, as that of modification can.
        changed = max(changed, found.st_mtime, found.st_ctime)
        numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        parts = (str(path.absolute()), document.start, document.stop, repr(document.form), *numbers)
        digest.update(json.dumps(parts).encode())
    return _Files(digest.hexdigest()[:32], num_bytes, changed)


def _read(documents: Sequence[Document], stored_bytes: int) -> Survey:
    whole, num_bytes = hashlib.sha256(), 0
    with Progress(stored_bytes, "read") as progress:
        for document in documents:
            for text in document.texts():
                digest = hashlib.sha256()
                for chunk in text.chunks:
                    digest.update(chunk)
                    num_bytes += len(chunk)
                    progress.update(len(chunk))
                whole.update(digest.digest())
    return Survey(num_bytes, whole.hexdigest())
