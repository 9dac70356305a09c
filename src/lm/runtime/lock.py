"""One process at a time where several may prepare the same files."""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lm.runtime.files import storage_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

POLL_SECONDS = 0.05
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """The others wait here until whoever prepares `target` is done; look again once inside.

    The lock belongs to the operating system and ends with the process, however it dies, so there
    are no stale locks; the empty lock file beside `target` stays.

    Raises:
        StorageError: the folder of `target` cannot be written.
    """
    with storage_errors(f"write {target.parent}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock").open("ab")
    with lock:
        while not try_lock(lock.fileno()):
            time.sleep(POLL_SECONDS)
        yield


def try_lock(descriptor: int) -> bool:
    """Take the operating system's lock on an open file, or say that another has it.

    On a file system without locks everybody gets it: what is written is whole in any case.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True
