"""The gradient of all streams from those of the processes' own, added up while it is computed.

Each process back-propagates its share of the objective, so the sum over processes is the gradient
of the whole batch. A parameter's gradient goes out as soon as it is whole: those of the upper
layers travel while the lower ones are still computed. The order is that of the graph, the same on
every process; nothing is regrouped on the way, so that a resumed run adds up in the same order.
On CPUs of one machine large gradients go through memory instead (`SharedSums`).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm.runtime.collectives import Pending
from lm.runtime.processes import Processes
from lm.training.communication import CommunicationConfig, PowerSGD, Rounded, WireType, begin
from lm.training.shared_sums import SharedSums

# A gradient with fewer elements waits for the other small ones, to travel with them.
_SMALL = 1 << 14


class Exchange:
    """Adds up the gradients of the processes of a run.

    Args:
        some_missing: a parameter may have a gradient on one process and none on another (in an
            adaptive softmax, whose clusters are left out where no word needs them), so that
            nothing may go out before all are known.

    Attributes:
        powersgd: what sends matrices as factors; None where all go as they are.
        shared: what adds up large gradients through memory, where it can.
    """

    def __init__(
        self,
        processes: Processes,
        parameters: Mapping[str, nn.Parameter],
        config: CommunicationConfig,
        *,
        some_missing: bool,
        seed: int,
    ) -> None:
        self._processes = processes
        self._parameters = dict(parameters)
        self._dtype = config.dtype
        self._some_missing = some_missing
        self._open = False
        self._pending: list[Pending | Rounded] = []
        self._sent: set[nn.Parameter] = set()
        self.shared = SharedSums(processes, [])
        self.powersgd: PowerSGD | None = None
        if processes.alone:
            return
        if config.powersgd_rank is not None:
            self.powersgd = PowerSGD(processes, parameters, config.powersgd_rank, seed)
        large = [p for n, p in parameters.items() if p.numel() >= _SMALL and not self._factored(n)]
        self.shared = SharedSums(processes, large if config.dtype is WireType.fp32 else [])
        if not some_missing:
            for parameter in large:
                parameter.register_post_accumulate_grad_hook(self._send)  # type: ignore[no-untyped-call]

    def open(self) -> None:
        """From now on gradients are whole when they come: the last pass of the step begins."""
        self._open = not self._processes.alone
        self._pending, self._sent = [], set()
        self.shared.begin()

    def close(self, numbers: Float[Tensor, " K"]) -> None:
        """Wait until all gradients are the whole batch's, and add up `numbers` on the way."""
        if self._processes.alone:
            return
        self._open = False
        if self._some_missing:
            self._fill_missing()
        small, factored = [], {}
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            if gradient is None or parameter in self._sent:
                continue
            if gradient.is_sparse:
                parameter.grad = self._joined(gradient)
            elif self._factored(name):
                factored[name] = gradient
            elif gradient.numel() < _SMALL:
                small.append(gradient)
            else:
                self._send_out(parameter)
        self._add_small(small)  # whoever has passed it knows that all have put theirs
        self.shared.add_own_shares()
        if self.powersgd is not None and factored:
            self.powersgd.add_up(factored)
        self._processes.add_up(numbers)  # and here, that all have added their shares
        self.shared.take()
        for pending in self._pending:
            pending.wait()

    def _factored(self, name: str) -> bool:
        return self.powersgd is not None and self.powersgd.takes(name)

    def _send(self, parameter: nn.Parameter) -> None:
        """Called by autograd once the parameter's gradient is there."""
        gradient = parameter.grad
        if self._open and gradient is not None and not gradient.is_sparse:
            self._send_out(parameter)

    def _send_out(self, parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if not gradient.is_contiguous():
            parameter.grad = gradient = gradient.contiguous()
        self._sent.add(parameter)
        if self.shared.takes(parameter):
            self.shared.put(parameter)
            return
        self._pending.append(begin(self._processes, gradient, self._dtype))

    def _add_small(self, gradients: list[Tensor]) -> None:
        if not gradients:
            if self.shared:
                self._processes.add_up(torch.zeros(1))
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._processes.add_up(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, whole in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(whole.view_as(gradient))

    def _joined(self, gradient: Tensor) -> Tensor:
        """A sparse gradient with the rows of all processes, those of one word not added yet."""
        index, own = gradient._indices()[0], gradient._values()
        counts = self._processes.counts(index)
        rows = self._processes.gather_lists(index, counts)
        values = self._processes.gather_lists(own, counts)
        return torch.sparse_coo_tensor(rows[None], values, gradient.shape, check_invariants=False)

    def _fill_missing(self) -> None:
        """Zeros where this process has no gradient but another has."""
        parameters = list(self._parameters.values())
        anywhere = self._processes.largest([float(p.grad is not None) for p in parameters])
        for parameter, there in zip(parameters, anywhere, strict=True):
            if there and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


@torch.no_grad()
def sums_of_bits(tensors: Sequence[Tensor]) -> list[int]:
    """A number for each tensor of float32, which the change of any one element changes."""
    # Modulo 2^32: a sum in int64 would take 20 times as long.
    sums = [tensor.detach().view(torch.int32).sum(dtype=torch.int32) for tensor in tensors]
    found: list[int] = torch.stack(sums).tolist()
    return found
