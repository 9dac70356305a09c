"""An optimiser step that a flag on the device can turn into no step at all.

When a gradient is not finite, parameters and optimiser state must stay as they are. Asking the
device for the flag would stall it in every step, so on an accelerator the flag is obeyed there.
"""

import inspect
from enum import Enum
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class SkipMethod(Enum):
    """How a step obeys the flag; all three give the same numbers.

    host: read the flag. Free on the CPU. Elsewhere a device read, and so left to the optimisers
        that keep counters on the host or read the device anyway (Adafactor).
    found_inf: hand it to torch's fused kernels, which return early.
    masked: step, then put the old values back where the flag is set. Costs a copy of parameters
        and state.
    """

    host = "host"
    found_inf = "found_inf"
    masked = "masked"


def skip_method(optimizer: torch.optim.Optimizer) -> SkipMethod:
    """The cheapest method that is right for this optimiser on the device of its parameters."""
    group = optimizer.param_groups[0]
    if group["params"][0].device.type == "cpu":
        return SkipMethod.host
    if group.get("fused"):
        return SkipMethod.found_inf
    all_on_device = group.get("capturable") or isinstance(
        optimizer, torch.optim.SGD | torch.optim.Muon
    )
    return SkipMethod.masked if all_on_device else SkipMethod.host


class Guard:
    """Steps one torch optimiser unless told on the device to skip."""

    def __init__(self, optimizer: torch.optim.Optimizer, method: SkipMethod | None = None) -> None:
        self.optimizer = optimizer
        # Without torch's wrappers, which serve hooks, profiling and the compiler, and import the
        # latter at the first step: three seconds and 200 MB. We use none of them.
        self._bare_step = partial(inspect.unwrap(type(optimizer).step), optimizer)
        self.method = method or skip_method(optimizer)
        assert self.method is not SkipMethod.found_inf or optimizer.param_groups[0].get("fused")

    @torch.no_grad()
    def step(self, skip: Bool[Tensor, ""], coefficient: Float[Tensor, ""] | None = None) -> None:
        """One update from the gradients × `coefficient`, or none where `skip` is true.

        The masked method reads the flag on the host as long as a parameter has no optimiser
        state yet, that is once, in the first step: torch creates the state inside the step.
        """
        if self.method is SkipMethod.host and bool(skip):
            return
        if self.method is SkipMethod.host and coefficient is not None and float(coefficient) == 1:
            coefficient = None
        if self.method is SkipMethod.host and self.is_plain_sgd:
            self._plain_sgd(1.0 if coefficient is None else float(coefficient))
            return
        live = [p for group in self.optimizer.param_groups for p in group["params"]]
        live = [p for p in live if p.grad is not None]
        if self.optimizer.param_groups[0].get("fused"):
            self._prepare_fused(live)
            # The kernels divide by what a loss scaler would have multiplied with.
            self.optimizer.grad_scale = None if coefficient is None else coefficient.float().pow(-1)  # type: ignore[attr-defined]
        elif coefficient is not None:
            gradients = [p.grad for p in live if p.grad is not None]
            torch._foreach_mul_(gradients, coefficient.to(gradients[0].dtype))
        if self.method is SkipMethod.found_inf:
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
            self._bare_step()
        elif self.method is SkipMethod.masked and self._has_state(live):
            self._masked_step(live, skip)
        elif self.method is SkipMethod.host or not bool(skip):
            self._bare_step()

    @property
    def is_plain_sgd(self) -> bool:
        """θ ← θ − lr · gradient and nothing else: where the gradient is 0, θ stays as it is."""
        settings = self.optimizer.defaults
        return isinstance(self.optimizer, torch.optim.SGD) and not (
            settings["momentum"] or settings["weight_decay"]
        )

    def _plain_sgd(self, coefficient: float) -> None:
        """One pass over parameters and gradients; of a sparse gradient, over its rows."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"] * coefficient)

    def _masked_step(self, live: list[nn.Parameter], skip: Bool[Tensor, ""]) -> None:
        """Step and select: `where`, because arithmetic with the flag would let a NaN through."""
        state = [value for p in live for value in self.optimizer.state[p].values()]
        targets = [p.data for p in live] + state
        before = [target.clone() for target in targets]
        self._bare_step()
        for target, old in zip(targets, before, strict=True):
            torch.where(skip, old, target, out=target)

    def _has_state(self, live: list[nn.Parameter]) -> bool:
        stateless = (
            isinstance(self.optimizer, torch.optim.SGD) and not self.optimizer.defaults["momentum"]
        )
        return stateless or all(self.optimizer.state.get(p) for p in live)

    def _prepare_fused(self, live: list[nn.Parameter]) -> None:
        """Shield the fused kernels from two traps.

        The CPU kernels ignore strides: a gradient laid out unlike its parameter would be applied
        to the wrong elements. And SGD creates its momentum uninitialised for the kernel to fill,
        which a skipped first step leaves so; zeros give the first step the same result, since we
        have no dampening.
        """
        momentum = isinstance(self.optimizer, torch.optim.SGD) and bool(
            self.optimizer.defaults["momentum"]
        )
        for parameter in live:
            gradient = parameter.grad
            assert gradient is not None
            if gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            if momentum and "momentum_buffer" not in self.optimizer.state[parameter]:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
