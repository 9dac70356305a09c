"""Several processes that train one model together, of which this is one.

torchrun starts them, one for each device or share of the cores, and torch.distributed carries what
they exchange. Each owns a fixed slice of the global streams, computes their part of the loss and
of the gradient, and all make the same update. A process alone is the same with a size of one, and
then nothing here costs anything.
"""

import os
import re
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributed as dist

from lm.errors import LmError, ProcessError, Stopped
from lm.runtime.messages import Messages
from lm.runtime.waiting import beside

DEFAULT_TIMEOUT_SECONDS = 600.0
# How long a lost connection waits for whoever was lost to have said why.
_LAST_WORDS_SECONDS = 2.0
_PART_BYTES = 16 << 20


class Pending:
    """A sum that is under way."""

    def __init__(self, work: dist.Work) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait for it; on an accelerator, let the device wait."""
        with connection():
            self._work.wait()


@dataclass(slots=True)
class Groups:
    """Where numbers are exchanged.

    Attributes:
        device: between the devices: NCCL on GPUs, gloo on CPUs.
        host: between the hosts' memories; the same one on CPUs.
    """

    device: dist.ProcessGroup
    host: dist.ProcessGroup


class Processes:
    """The processes of a job, seen from one of them.

    Args:
        local_rank: the number of this one on its machine.
        messages: None is a process alone.
        launch: tells this job from all others, and is the same after it was restarted.
        attempt: how often it was restarted.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        local_rank: int = 0,
        messages: Messages | None = None,
        groups: Groups | None = None,
        launch: str = "",
        attempt: int = 0,
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.launch, self.attempt = launch, attempt
        self._messages, self._groups = messages, groups
        self._turns = 0

    @property
    def alone(self) -> bool:
        """There is no other."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """This is the one that writes and speaks for all."""
        return self.rank == 0

    def of_job(self, number: int) -> "Processes":
        """The same for one of several jobs: what went wrong in one is past in the next."""
        if self.alone:
            return self
        return Processes(
            self.rank, self.size, local_rank=self.local_rank,
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

    def share(self, count: int) -> slice:
        """Which of `count` things in a row are this process's own."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    # Numbers: everybody calls the same in the same order.

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over all processes."""
        if not self.alone:
            self.begin_adding(tensor).wait()

    def begin_adding(self, tensor: Tensor) -> Pending:
        """The same, under way until it is waited for."""
        assert self._groups is not None, "not connected"
        with connection():
            work = dist.all_reduce(tensor, group=self._groups.device, async_op=True)
        assert work is not None
        return Pending(work)

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all processes."""
        if self.alone:
            return list(values)
        assert self._groups is not None, "not connected"
        row = torch.tensor(values, dtype=torch.float64)
        with connection():
            dist.all_reduce(row, op=dist.ReduceOp.MAX, group=self._groups.host)
        found: list[float] = row.tolist()
        return found

    def gather(self, own: Shaped[Tensor, "K ..."], count: int) -> Shaped[Tensor, "N ..."]:
        """All of `count` rows, of which each process has its `share`."""
        if self.alone:
            return own
        whole = own.new_zeros(count, *own.shape[1:])
        whole[self.share(count)] = own
        # Bits beside zeros, so that nothing is rounded and a negative zero stays one.
        self.add_up(whole.view(_BITS[own.itemsize]))
        return whole

    def stack(self, own: Shaped[Tensor, "..."]) -> Shaped[Tensor, "P ..."]:
        """The tensors of all processes, which have the same shape."""
        if self.alone:
            return own[None]
        assert self._groups is not None, "not connected"
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with connection():
            dist.all_gather(parts, own.contiguous(), group=self._groups.device)
        return torch.stack(parts)

    def counts(self, own: Sized) -> list[int]:
        """How many rows each process has."""
        row = torch.zeros(self.size, dtype=torch.int64)
        row[self.rank] = len(own)
        return [int(count) for count in self.largest(row.tolist())]

    def gather_lists(
        self, own: Shaped[Tensor, "K ..."], counts: Sequence[int]
    ) -> Shaped[Tensor, "N ..."]:
        """The rows of all processes one after the other.

        Args:
            counts: how many each has.
        """
        if self.alone:
            return own
        padded = own.new_zeros(max(counts), *own.shape[1:])
        padded[: len(own)] = own
        return torch.cat([part[:n] for part, n in zip(self.stack(padded), counts, strict=True)])

    def deal(
        self, rows: Shaped[Tensor, "N ..."], counts: Sequence[int]
    ) -> Shaped[Tensor, "P K ..."]:
        """Give each process its rows of everybody's `rows`; what it gets from each.

        Args:
            counts: how many rows belong to each, in their order.
        """
        if self.alone:
            return rows[None]
        assert self._groups is not None, "not connected"
        own = counts[self.rank]
        dealt = rows.new_empty(self.size * own, *rows.shape[1:])
        with connection():
            dist.all_to_all_single(
                dealt, rows.contiguous(), [own] * self.size, list(counts), group=self._groups.device
            )
        return dealt.view(self.size, own, *rows.shape[1:])

    def collect(
        self, own: Shaped[Tensor, "K ..."], count: int
    ) -> Iterator[Shaped[Tensor, "N ..."]]:
        """All of `count` rows for the first process, in parts; the others have to walk along.

        Each has its `share` of the rows.
        """
        if self.alone:
            yield own
            return
        share = self.share(count)
        step = max(1, _PART_BYTES // max(1, own[:1].nbytes))
        for begin in range(0, count, step):
            end = min(begin + step, count)
            part = own.new_zeros(end - begin, *own.shape[1:])
            low, high = max(begin, share.start), min(end, share.stop)
            if low < high:
                part[low - begin : high - begin] = own[low - share.start : high - share.start]
            self.add_up(part.view(_BITS[own.itemsize]))
            yield part

    def check_same(self, numbers: Sequence[int], what: str) -> None:
        """Make sure that every process has the same numbers.

        Raises:
            ProcessError: one has others.
        """
        # Halves, since a float64 holds 53 bits exactly.
        halves = [half for number in numbers for half in (number >> 32, number & 0xFFFFFFFF)]
        extremes = self.largest([*halves, *(-half for half in halves)])
        if any(a != -b for a, b in zip(extremes, extremes[len(halves) :], strict=False)):
            raise ProcessError(
                f"the {self.size} processes have different {what}",
                "One of their machines, or the data on it, is not as the others'. The last"
                " checkpoint is good: continue with resume=.",
            )

    # Turns and ends.

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
                backend, store=store, rank=self.rank, world_size=self.size, timeout=timeout
            )
            world = dist.group.WORLD
            assert world is not None
            host = world if backend == "gloo" else dist.new_group(backend="gloo", timeout=timeout)
        return Groups(world, host)

    @contextmanager
    def with_reasons(self) -> Iterator[None]:
        """Where another process was lost inside, end for the reason that it gave."""
        try:
            yield
        except _LostConnectionError as lost:
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


class _LostConnectionError(ProcessError):
    """A connection to another process broke, or nothing came through it in time."""


# What every backend can add.
_BITS = {1: torch.uint8, 4: torch.int32, 8: torch.int64}


def as_error(said: dict[str, Any], prefix: str = "") -> LmError | Stopped:
    """The error that another process ended with, by its exit code."""
    cause, remedy = f"{prefix}{said['cause']}", str(said["remedy"])
    if said["code"] == Stopped.code:
        return Stopped(cause, remedy)
    kinds = {kind.code: kind for kind in LmError.__subclasses__()}
    return kinds.get(said["code"], ProcessError)(cause, remedy)


@contextmanager
def connection() -> Iterator[None]:
    """Whatever an exchange raises means that another process is gone, or stands still."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises derives from it
        raise _LostConnectionError(
            f"another process of this run was lost: {_plain(error)}",
            "See what it said. The last checkpoint is good: continue with resume=, or let"
            " runtime.restarts=3 (torchrun --max-restarts=3) do so.",
        ) from error


def _plain(error: RuntimeError) -> str:
    """What torch says, without the place in its source and its guesses."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*\]\s*", "", first).partition(". This is")[0]
