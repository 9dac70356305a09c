"""The gradient of all streams from those of the processes' own, added up while it is computed.

Each process back-propagates its share of the objective, so the sum over processes is the gradient
of the whole batch. A parameter's gradient goes out as soon as it is whole: those of the upper
layers travel while the lower ones are still computed. The order is that of the graph, the same on
every process; nothing is regrouped on the way, so that a resumed run adds up in the same order.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm.runtime.collectives import Pending
from lm.runtime.processes import Processes
from lm.training.communication import CommunicationConfig, PowerSGD, Rounded, begin

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
        self.powersgd: PowerSGD | None = None
        if processes.alone:
            return
        if config.powersgd_rank is not None:
            self.powersgd = PowerSGD(processes, parameters, config.powersgd_rank, seed)
        if not some_missing:
            for name, parameter in parameters.items():
                if parameter.numel() >= _SMALL and not self._factored(name):
                    parameter.register_post_accumulate_grad_hook(self._send)  # type: ignore[no-untyped-call]

    def open(self) -> None:
        """From now on gradients are whole when they come: the last pass of the step begins."""
        self._open = not self._processes.alone
        self._pending, self._sent = [], set()

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
        self._add_small(small)
        if self.powersgd is not None and factored:
            self.powersgd.add_up(factored)
        self._processes.add_up(numbers)
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
        self._pending.append(begin(self._processes, gradient, self._dtype))

    def _add_small(self, gradients: list[Tensor]) -> None:
        if not gradients:
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
    sums = [tensor.detach().view(torch.int32).sum(dtype=torch.int64) for tensor in tensors]
    found: list[int] = torch.stack(sums).tolist()
    return found
