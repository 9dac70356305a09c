"""What the processes of a job tell each other in words: named JSON values in a store.

Numbers are added up by a process group, where everybody takes part at the same moment. Words are
left in torch.distributed's key-value store, for whoever comes to need them: the configuration, the
run directory, which kernel was the fastest, why a process gave up.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch._C._distributed_c10d import PrefixStore, Store

from lm.errors import ProcessError

_LOOK_SECONDS = 0.02
_LOOKS_PER_BEAT = 50


class GoneError(ProcessError):
    """Whoever holds what the processes tell each other is gone: nothing can be said any more."""


def lost(rank: int, seconds: float) -> ProcessError:
    """What to say of a process that was waited for."""
    return ProcessError(
        f"process {rank} gave no sign of life for {seconds:g} s",
        "See what its machine says; runtime.timeout_seconds is the time it has.",
    )


class Messages:
    """The values of one job.

    Attributes:
        patience_seconds: how long a process may give no sign of life before it counts as lost.
    """

    def __init__(
        self, store: Store, patience_seconds: float, *, beats: Store | None = None
    ) -> None:
        self.store = store
        self.patience_seconds = patience_seconds
        self._beating = beats or store  # signs of life are of a process, not of a part

    def part(self, name: str) -> "Messages":
        """Messages of the same processes under names of their own."""
        store = PrefixStore(name, self.store)
        return Messages(store, self.patience_seconds, beats=self._beating)

    def put(self, name: str, value: Any) -> None:
        """Say something, once and for all."""
        self.store.set(name, json.dumps(value))

    def put_last(self, name: str, value: Any) -> None:
        """Say something on leaving, when there may be nobody left to hear it."""
        with suppress(RuntimeError):
            self.put(name, value)

    def claimed_by(self, name: str, rank: int) -> int:
        """Whose it is to say something: the rank of the first process that asked."""
        return int(self.store.compare_set(f"claim/{name}", "", str(rank)))

    def collect(self, value: Any) -> None:
        """Add something to what all of them collect."""
        number = self.store.add("collected", 1)
        self.store.set(f"collected/{number}", json.dumps(value))

    def collected(self) -> list[Any]:
        """What they have collected so far."""
        count = self.store.add("collected", 0)
        names = [f"collected/{k}" for k in range(1, count + 1)]
        # One that was killed while it added something has left it out, and is not waited for.
        return [json.loads(self.store.get(name)) for name in names if self.store.check([name])]

    def found(self, name: str) -> Any:
        """What was said; None where nothing was yet."""
        return json.loads(self.store.get(name)) if self.store.check([name]) else None

    def found_within(self, name: str, seconds: float) -> Any:
        """The same after waiting for it, but no longer than so."""
        limit = time.monotonic() + seconds
        while (value := self.found(name)) is None and time.monotonic() < limit:
            time.sleep(0.02)
        return value

    def await_(self, name: str, of: int, look: Callable[[], None] = lambda: None) -> Any:
        """What the process of rank `of`, which gives signs of life, will have said.

        Args:
            look: called now and then; may raise what ends the waiting.

        Looks again and again rather than waiting in the library, so that signals are heard.

        Raises:
            ProcessError: it gives none any more; `GoneError` if there is nowhere to look.
        """
        seen, heard_at, looked = self._beats(of), time.monotonic(), 0
        while (value := self._looked_up(name)) is None:
            time.sleep(_LOOK_SECONDS)
            looked += 1
            if looked % _LOOKS_PER_BEAT:
                continue
            look()
            beats = self._beats(of)
            if beats != seen:
                seen, heard_at = beats, time.monotonic()
            if time.monotonic() - heard_at > self.patience_seconds:
                raise lost(of, self.patience_seconds)
        return value

    def _looked_up(self, name: str) -> Any:
        try:
            return self.found(name)
        except RuntimeError as error:
            raise GoneError(
                f"the process that holds the job together is gone ({error})",
                "See what it said; the run continues with resume=.",
            ) from error

    def _beats(self, rank: int) -> int:
        return self._beating.add(f"beats/{rank}", 0)
