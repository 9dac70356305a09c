"""Several processes that train one model together, of which this is one.

torchrun starts them, one for each device or share of the cores, and torch.distributed carries what
they exchange. Each owns a fixed slice of the global streams, computes their part of the loss and
of the gradient, and all make the same update. A process alone is the same with a size of one, and
then nothing here costs anything.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import distributed as dist

from lm.errors import LmError, Stopped
from lm.runtime.collectives import Collectives, Groups
from lm.runtime.connection import LostConnectionError, as_error, connection, lost_connection
from lm.runtime.messages import Messages
from lm.runtime.waiting import beside

DEFAULT_TIMEOUT_SECONDS = 600.0
# How long a lost connection waits for whoever was lost to have said why.
_LAST_WORDS_SECONDS = 2.0
# How long one that was asked to stop still waits for another's answer.
_ANSWER_SECONDS = 5.0


class Processes(Collectives):
    """The processes of a job, seen from one of them.

    Args:
        local_rank: the number of this one on its machine.
        one_machine: all of them are on it.
        messages: None is a process alone.
        launch: tells this job from all others, and is the same after it was restarted.
        attempt: how often it was restarted.

    Attributes:
        asked_to_stop: whether a signal has asked this one to stop at its next step.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        local_rank: int = 0,
        one_machine: bool = False,
        messages: Messages | None = None,
        groups: Groups | None = None,
        launch: str = "",
        attempt: int = 0,
    ) -> None:
        super().__init__(rank, size, groups)
        self.local_rank, self.one_machine = local_rank, one_machine
        self.launch, self.attempt = launch, attempt
        self.asked_to_stop: Callable[[], bool] = lambda: False
        self._messages = messages
        self._turns = 0

    def of_job(self, number: int) -> "Processes":
        """The same for one of several jobs: what went wrong in one is past in the next."""
        if self.alone:
            return self
        return Processes(
            self.rank, self.size, local_rank=self.local_rank, one_machine=self.one_machine,
            messages=self.messages.part(f"job/{number}"), launch=self.launch, attempt=self.attempt,
        )  # fmt: skip

    def describe(self) -> dict[str, str | int]:
        """What a run directory says of them."""
        return {"processes": self.size, **({"launch": self.launch} if self.launch else {})}

    @property
    def messages(self) -> Messages:
        """What they tell each other."""
        assert self._messages is not None, "a process alone has nobody to talk to"
        return self._messages

    def be_patient(self, seconds: float) -> None:
        """Set how long another process may keep this one waiting before it counts as lost."""
        if not self.alone:
            self.messages.patience_seconds = seconds

    def tell(self, name: str, value: Any) -> None:
        """Say to all others what the first process has found or chosen."""
        if not self.alone:
            self.messages.put(name, value)

    def told(self, name: str) -> Any:
        """What the first process said."""
        return self.messages.await_(name, of=0, look=self._look_for_failure)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Inside, the first process comes first, then the first of each other machine, then all.

        So that what is prepared once (a corpus, a compiled kernel) is found by the others, and what
        the first one refuses is said once.
        """
        if self.alone:
            yield
            return
        self._turns += 1
        turn = self.messages.part(f"turn/{self._turns}")
        node = os.environ.get("GROUP_RANK", "0")
        if not self.first:
            before = "first" if self.local_rank == 0 else f"machine/{node}"
            turn.await_(before, of=0, look=self._look_for_failure)
        yield
        if self.first:
            turn.put("first", True)
        if self.local_rank == 0:
            turn.put(f"machine/{node}", True)

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Form the groups, and take leave of the others at the end, however it comes."""
        if self.alone or self._groups is not None:
            yield
            return
        timeout = timedelta(seconds=self.messages.patience_seconds)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # or what NCCL makes lies on the first GPU
        # Whoever waits here for one that was lost has to hear the agent's signal to end.
        form = partial(self._form_groups, device, timeout)
        self._groups = beside(form, self._look_for_failure)
        try:
            yield
        finally:
            self._groups = None
            dist.destroy_process_group()

    def _form_groups(self, device: torch.device, timeout: timedelta) -> Groups:
        backend = "nccl" if device.type == "cuda" else "gloo"
        with connection():
            # A store of its own, since one that waits keeps whoever else uses it waiting too.
            store = self.messages.part("group").store.clone()  # type: ignore[attr-defined]
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.size, timeout=timeout,
                device_id=device if backend == "nccl" else None,
            )  # fmt: skip
            world = dist.group.WORLD
            assert world is not None
            host = world if backend == "gloo" else dist.new_group(backend="gloo", timeout=timeout)
        return Groups(world, host)

    @contextmanager
    def with_reasons(self) -> Iterator[None]:
        """Where another process was lost inside, end for the reason that it gave."""
        try:
            yield
        except LostConnectionError as lost:
            raise self._reason_of_others() or lost from lost

    @contextmanager
    def saying_why(self) -> Iterator[None]:
        """Tell the others if this process ends by an error, and why."""
        try:
            yield
        except (LmError, Stopped) as error:
            self._say(error.code, error.cause, error.remedy)
            raise
        except Exception as error:
            self._say(LmError.code, f"{type(error).__name__}: {error}", "")
            raise

    def _say(self, code: int, cause: str, remedy: str) -> None:
        if self.alone:
            return
        try:
            if self.messages.claimed_by("failure", self.rank) == self.rank:
                said = {"rank": self.rank, "code": code, "cause": cause, "remedy": remedy}
                self.messages.put("failure", said)
        except RuntimeError:
            pass  # nobody is there to hear it

    def watch(self) -> Callable[[], None]:
        """For one wait within a step: what to call now and then, which raises what ends it.

        The agent asks all to stop when one of them is lost, which cannot answer any more; whoever
        waits for it would never come to its next step.
        """
        asked_at: float | None = None

        def look() -> None:
            nonlocal asked_at
            self._look_for_failure()
            if asked_at is None and self.asked_to_stop():
                asked_at = time.monotonic()
            if asked_at is not None and time.monotonic() - asked_at > _ANSWER_SECONDS:
                raise lost_connection("it does not answer, and this one was asked to stop")

        return look

    def _look_for_failure(self) -> None:
        said = self.messages.found("failure")
        if said is not None:
            raise as_error(said, f"process {said['rank']}: ")

    def end_with(self, code: int) -> None:
        """Say how the first process ended; the others may wait for it."""
        if self.first and not self.alone:
            self.messages.put_last("end", code)

    def end_of_first(self) -> int | None:
        """The code that the first process ended with, if it says so within a moment."""
        try:
            found: int | None = self.messages.found_within("end", _LAST_WORDS_SECONDS)
        except RuntimeError:
            return None
        return found

    def _reason_of_others(self) -> LmError | Stopped | None:
        try:
            said = self.messages.found_within("failure", _LAST_WORDS_SECONDS)
        except RuntimeError:
            return None
        return None if said is None else as_error(said, f"process {said['rank']}: ")


ALONE = Processes()
