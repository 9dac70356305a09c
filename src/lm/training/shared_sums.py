"""Sums of gradients between processes of one machine, through memory that all of them map.

A socket copies what could be read where it lies. Here each process puts its gradients where the
others see them, adds up its own share of the elements, and takes the others' shares from where they
have added them: half the time of gloo's sum, and none of it beside the backward pass.

Nothing here waits for anybody: between `put` and `add_own_shares`, and between that and `take`, all
processes have to meet, by taking part in any sum of the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm.runtime.processes import Processes
from lm.runtime.shared_memory import shared_rows


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a gradient of K elements is exchanged, and whose share of it is which."""

    rows: Float[Tensor, "P K"]
    shares: list[slice]


class SharedSums:
    """Adds up the gradients of those parameters that it `takes`: large ones of float32.

    It takes none where the processes have no memory in common.
    """

    def __init__(self, processes: Processes, parameters: Sequence[nn.Parameter]) -> None:
        self._processes = processes
        self._asked = [p for p in parameters if p.dtype == torch.float32 and p.device.type == "cpu"]
        self._places: dict[nn.Parameter, _Place] = {}
        self._put: list[tuple[Tensor, _Place]] = []

    def begin(self) -> None:
        """A step begins; the first one, once the processes are connected, sets the memory aside."""
        self._put = []
        if self._asked:
            sizes = [parameter.numel() for parameter in self._asked]
            rows = shared_rows(self._processes, sum(sizes))
            parts = [] if rows is None else torch.split(rows, sizes, dim=1)
            for parameter, part in zip(self._asked, parts, strict=False):
                shares = self._processes.shares(parameter.numel())
                self._places[parameter] = _Place(part, shares)
            self._asked = []

    def __bool__(self) -> bool:
        """There are parameters that it takes."""
        return bool(self._places)

    def takes(self, parameter: nn.Parameter) -> bool:
        """Whether this parameter's gradient goes this way."""
        return parameter in self._places

    def put(self, parameter: nn.Parameter) -> None:
        """Show the others those shares of its gradient that they add up."""
        assert parameter.grad is not None
        gradient, place = parameter.grad.view(-1), self._places[parameter]
        for rank, share in enumerate(place.shares):
            if rank != self._processes.rank:
                place.rows[self._processes.rank, share].copy_(gradient[share])
        self._put.append((gradient, place))

    def add_own_shares(self) -> None:
        """Add the others' to our own share of each gradient, and show them the sum."""
        for gradient, place in self._put:
            share = place.shares[self._processes.rank]
            total = gradient[share]
            for rank, row in enumerate(place.rows):
                if rank != self._processes.rank:
                    total.add_(row[share])
            place.rows[self._processes.rank, share].copy_(total)

    def take(self) -> None:
        """Put the others' sums in the gradients' place."""
        for gradient, place in self._put:
            for rank, share in enumerate(place.shares):
                if rank != self._processes.rank:
                    gradient[share].copy_(place.rows[rank, share])
        self._put = []
