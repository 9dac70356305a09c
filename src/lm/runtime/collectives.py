"""Numbers that processes exchange: everybody calls the same in the same order."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributed as dist

from lm.errors import ProcessError
from lm.runtime.connection import connection

_PART_BYTES = 16 << 20
_LONGEST_TEXT = 512
# What every backend can add.
_BITS = {1: torch.uint8, 4: torch.int32, 8: torch.int64}


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


class Collectives:
    """What `size` processes compute together, of which this is number `rank`.

    A process alone exchanges nothing: each of these is then what it is without others.

    Args:
        groups: where numbers are exchanged; None until they are connected.
    """

    def __init__(self, rank: int, size: int, groups: Groups | None) -> None:
        self.rank, self.size = rank, size
        self._groups = groups

    @property
    def alone(self) -> bool:
        """There is no other."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """This is the one that writes and speaks for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things in a row are this process's own."""
        return self.shares(count)[self.rank]

    def shares(self, count: int) -> list[slice]:
        """Which of `count` things in a row are whose."""
        edges = [rank * count // self.size for rank in range(self.size + 1)]
        return [slice(begin, end) for begin, end in pairwise(edges)]

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over all processes."""
        if not self.alone:
            self.begin_adding(tensor).wait()

    def take_largest(self, tensor: Tensor) -> None:
        """Replace each element of a tensor by the largest of all processes."""
        if self.alone:
            return
        assert self._groups is not None, "not connected"
        with connection():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._groups.device)

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

    def hear_first(self, text: str) -> str:
        """What the first process says here, of at most 512 bytes."""
        own = text.encode().ljust(_LONGEST_TEXT, b"\0") if self.first else bytes(_LONGEST_TEXT)
        said = self.largest(list(own))
        return bytes(int(byte) for byte in said).rstrip(b"\0").decode()

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
