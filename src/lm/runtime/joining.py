"""How the processes of a job find each other after torchrun has started them.

torchrun's agent holds a store, and keeps it when it starts the processes anew: what those before
them said is still there. So each attempt has names of its own, which the first process makes up
and tells whoever says hello to it.
"""

import itertools
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lm.runtime.connection import connection
from lm.runtime.messages import Messages, lost
from lm.runtime.ownership import started
from lm.runtime.processes import DEFAULT_TIMEOUT_SECONDS, Processes

_TURN_SECONDS = 0.05
_TURNS_PER_BEAT = 20


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun, or our own launcher, started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarts_failures() -> bool:
    """Whether the agent starts the processes again when one ends with another code than 0."""
    return os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


@contextmanager
def joined(patience_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Iterator[Processes]:
    """The processes that were started together, of which this is one.

    Args:
        patience_seconds: how long the first process may keep this one waiting.

    Raises:
        ProcessError: they do not find each other.
    """
    with connection():
        store, rank, size = next(rendezvous("env://"))
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    attempt = secrets.token_hex(8) if rank == 0 else _welcome(store, patience_seconds)
    messages = Messages(PrefixStore(f"attempt/{attempt}", store), patience_seconds)
    processes = Processes(
        rank,
        size,
        local_rank=local_rank,
        one_machine=os.environ.get("LOCAL_WORLD_SIZE") == str(size),
        messages=messages,
        launch=_launch(),
        attempt=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )
    service = _Service(store, attempt, rank) if local_rank == 0 else nullcontext()
    with service:
        yield processes


def _welcome(store: Store, patience_seconds: float) -> str:
    """Say hello, and hear what this attempt is called.

    Raises:
        ProcessError: nobody answers.
    """
    own, limit = secrets.token_hex(8), time.monotonic() + patience_seconds
    with connection():
        number = store.add("hello", 1)
        store.set(f"hello/{number}", own)
        while not store.check([f"welcome/{own}"]):
            if time.monotonic() > limit:
                raise lost(0, patience_seconds)
            time.sleep(_TURN_SECONDS)
        return store.get(f"welcome/{own}").decode()


class _Service(threading.Thread):
    """Gives signs of life for this process; the first one also answers whoever says hello.

    Those of attempts before are answered too, who are gone. It ends with the process.
    """

    def __init__(self, store: Store, attempt: str, rank: int) -> None:
        super().__init__(name="lm-service", daemon=True)
        # Of its own, since a store that waits for something keeps others waiting too.
        self._store: Store = store.clone()  # type: ignore[attr-defined]
        self._own = PrefixStore(f"attempt/{attempt}", self._store)
        self._attempt, self._rank = attempt, rank
        self._heard = 0
        self._unanswered: set[int] = set()
        self._done = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        try:
            for turn in itertools.count():
                if turn % _TURNS_PER_BEAT == 0:
                    self._own.add(f"beats/{self._rank}", 1)
                if self._rank == 0:
                    self._answer()
                if self._done.wait(_TURN_SECONDS):
                    return
        except RuntimeError:
            # Whoever holds the store is gone, and with it whoever would end this process: it has
            # to save and stop by itself.
            if not self._done.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    def _answer(self) -> None:
        heard = self._store.add("hello", 0)
        self._unanswered |= set(range(self._heard + 1, heard + 1))
        self._heard = heard
        for number in list(self._unanswered):
            # One that was killed in the middle of saying hello has left no name.
            if self._store.check([f"hello/{number}"]):
                name = self._store.get(f"hello/{number}").decode()
                self._store.set(f"welcome/{name}", self._attempt)
                self._unanswered.remove(number)


def _launch() -> str:
    """The same for every attempt of one launch: the user's id of it, or the agent's process."""
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if given != "none":
        return given
    agent = os.getppid()
    return f"{socket.gethostname()} {agent} {started(agent)}"
