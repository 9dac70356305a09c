"""Whose a folder is: one living process at a time, told from a dead one that left its name there.

The operating system's lock decides where it works, and ends with the process. It does not reach
across machines on every network file system, and some have none; so the owner also writes down who
it is, and touches the file as long as it lives. A clock may be set meanwhile, by a day: how old the
file looks can save waiting for its owner, but nobody is taken for dead who was not watched.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from lm.errors import StorageError
from lm.runtime.files import storage_errors
from lm.runtime.lock import try_lock

HEARTBEAT_SECONDS = 30.0
# Ten missed: a machine that is merely slow is not taken for a dead one.
STALE_SECONDS = 300.0
# Two touches, and some time for a network file system to show them.
WATCHED_SECONDS = 75.0
_LOOK_SECONDS = 1.0
_NAMING_SECONDS = 2.0
_LONGEST = 4096

log = logging.getLogger(__name__)


class Standing(Enum):
    """What is known of an owner: `unknown` where it is of another machine."""

    alive = "alive"
    gone = "gone"
    unknown = "unknown"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, such that no later one can be taken for it.

    Attributes:
        boot: of the machine since it last started; empty where the system has no such number.
        started: of the process, in the system's ticks since then; empty likewise.
    """

    host: str
    pid: int
    boot: str
    started: str

    @classmethod
    def of_this_process(cls) -> "Owner":
        """The process that asks."""
        return cls(socket.gethostname(), os.getpid(), _boot(), started(os.getpid()))

    @classmethod
    def read(cls, text: str) -> "Owner | None":
        """The inverse of `write`; None where nobody is named."""
        try:
            owner = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (owner.host, owner.boot, owner.started)
        named = all(isinstance(text, str) and text.isprintable() for text in texts)
        return owner if named and type(owner.pid) is int and 0 < owner.pid < 1 << 31 else None

    def write(self) -> str:
        """As the lock file has it."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def standing(self) -> Standing:
        """Whether it lives."""
        here = Owner.of_this_process()
        if self.host != here.host:
            return Standing.unknown
        if self == here or self.boot != here.boot or not _exists(self.pid):
            return Standing.gone
        # The number was given to another process since.
        return Standing.alive if started(self.pid) == self.started else Standing.gone


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process began, in the system's ticks since it did; empty where it is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The command's name, which may hold anything, stands in brackets before the other fields.
    return fields.rpartition(")")[2].split()[19]


def _exists(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there; the system's lock must do
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def owning(lock: Path) -> Iterator[None]:
    """Own the folder of a lock file while inside.

    Raises:
        StorageError: a living process owns it, which is named; or the file cannot be written.
    """
    with storage_errors(f"lock {lock.parent}"):
        file = lock.open("a+", encoding="utf-8")
    with file:
        free = try_lock(file.fileno())
        if not free:
            raise _in_use(lock, _holder(lock), "Wait for that run or stop it.")
        file.seek(0)
        owner = Owner.read(file.read(_LONGEST))
        if owner is not None:
            _take_over(lock, owner)
        with storage_errors(f"lock {lock.parent}"):
            file.truncate(0)
            file.write(Owner.of_this_process().write())
            file.flush()
        try:
            with _heartbeat(lock):
                yield
        finally:
            file.truncate(0)


def living_owner(lock: Path) -> Owner | None:
    """Who owns the folder of a lock file, as far as the file says; None where nobody does."""
    try:
        with lock.open(encoding="utf-8", errors="replace") as file:
            owner = Owner.read(file.read(_LONGEST))
    except OSError:
        return None
    if owner is None or owner == Owner.of_this_process():
        return owner
    return None if owner.standing() is Standing.gone else owner


def _holder(lock: Path) -> "Owner | str":
    """Who has the lock; at first the file may still name the owner before, or nobody."""
    limit = time.monotonic() + _NAMING_SECONDS
    while (owner := living_owner(lock)) is None:
        if time.monotonic() > limit:
            return "another process"
        time.sleep(0.01)
    return owner


def _take_over(lock: Path, owner: Owner) -> None:
    """Accept that the last owner is gone.

    Raises:
        StorageError: it is alive, or may be.
    """
    standing = owner.standing()
    if standing is Standing.alive:  # on a file system without locks
        raise _in_use(lock, owner, "Wait for that run or stop it.")
    if standing is Standing.unknown and (0 <= _age(lock) < STALE_SECONDS or _touched(lock, owner)):
        raise _in_use(
            lock,
            owner,
            f"If it died, wait {STALE_SECONDS / 60:.0f} minutes after its death, or delete {lock}.",
        )
    log.info("taken over from %s, which ended without giving it back: %s", owner, lock.parent)


def _in_use(lock: Path, owner: object, remedy: str) -> StorageError:
    return StorageError(f"{lock.parent} is in use by {owner}", remedy)


def _age(lock: Path) -> float:
    """Seconds since the owner last touched the file, by the file system's own clock."""
    probe = lock.with_name(f".put-clock-{uuid.uuid4().hex[:8]}")
    with storage_errors(f"write {lock.parent}"):
        try:
            probe.touch()
            return probe.stat().st_mtime - lock.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _touched(lock: Path, owner: Owner) -> bool:
    """Watch the file for some time that no clock decides: whether its owner touches it."""
    log.info(
        "%s was not seen lately: watching %s for %.0f s before it is taken over",
        owner, lock, WATCHED_SECONDS,
    )  # fmt: skip
    before, limit = _modified(lock), time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < limit:
        time.sleep(_LOOK_SECONDS)
        if _modified(lock) != before:
            return True
    return False


def _modified(lock: Path) -> int:
    # Opened, since a network file system may answer for a name from what it remembers.
    with storage_errors(f"read {lock}"), lock.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns


@contextmanager
def _heartbeat(lock: Path) -> Iterator[None]:
    """Touch the lock file now and then, from a thread that ends with the process."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(lock)
            except OSError as error:  # the disk may be away for a moment
                log.warning("cannot touch %s: %s", lock, error)

    thread = threading.Thread(target=beat, name="lm-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
