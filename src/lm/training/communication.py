"""How gradients travel between processes: as they are, in half the bytes, or as two thin factors.

On a fast link they go as they are. Where the link is what a step waits for, bf16 halves the bytes,
and PowerSGD sends of an [m, n] matrix r (m + n) numbers instead of m n (Vogels, Karimireddy & Jaggi
2019, PowerSGD, algorithms 1 and 2). What a process could not send it keeps, and adds to its next
gradient, so that nothing is lost but only late.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm import checks
from lm.errors import CheckpointError, ConfigError
from lm.runtime.collectives import Pending
from lm.runtime.processes import Processes
from lm.runtime.randomness import generator
from lm.runtime.untrusted import REMEDY

# Below this share of its elements a matrix is worth its two factors.
_LARGEST_SHARE = 0.5


class WireType(Enum):
    """Of the numbers that are sent."""

    fp32 = "fp32"
    bf16 = "bf16"


@dataclass(kw_only=True, slots=True)
class CommunicationConfig:
    """What several processes send each other; without effect on one.

    Attributes:
        dtype: of gradients on their way: `fp32`, or `bf16`, which rounds them.
        powersgd_rank: r of PowerSGD, which sends matrices as two factors of r columns; None is off.
        local_steps: H: steps that each process makes by itself before weights are averaged; 1 is
            none.
        local_after: step from which on.
        outer_lr: rate of the outer optimiser, whose gradient is the change over H steps; 1 with no
            momentum takes the average.
        outer_momentum: its Nesterov momentum.
    """

    dtype: WireType = WireType.fp32
    powersgd_rank: int | None = None
    local_steps: int = 1
    local_after: int = 0
    outer_lr: float = 1.0
    outer_momentum: float = 0.0

    def __post_init__(self) -> None:
        checks.at_least("trainer.communication.powersgd_rank", self.powersgd_rank, 1)
        checks.at_most("trainer.communication.powersgd_rank", self.powersgd_rank, 1 << 12)
        if self.powersgd_rank is not None and self.dtype is not WireType.fp32:
            raise ConfigError(
                "trainer.communication.dtype=bf16 and powersgd_rank exclude each other",
                "Set trainer.communication.dtype=fp32.",
            )
        checks.at_least("trainer.communication.local_steps", self.local_steps, 1)
        checks.at_least("trainer.communication.local_after", self.local_after, 0)
        checks.positive("trainer.communication.outer_lr", self.outer_lr)
        checks.fraction("trainer.communication.outer_momentum", self.outer_momentum)
        if self.local_steps == 1:
            checks.no_effect(
                "trainer.communication", self, ("local_after", "outer_lr", "outer_momentum"),
                "local_steps=1 averages nothing", "Set trainer.communication.local_steps",
            )  # fmt: skip
        elif self.powersgd_rank is not None or self.dtype is not WireType.fp32:
            raise ConfigError(
                f"trainer.communication.local_steps={self.local_steps} sends weights, and those as"
                " they are",
                "Drop trainer.communication.powersgd_rank and dtype.",
            )


class Rounded:
    """A sum that travels in bf16: begun as soon as the gradient is there."""

    def __init__(self, processes: Processes, gradient: Tensor) -> None:
        self._gradient, self._sent = gradient, gradient.bfloat16()
        self._pending = processes.begin_adding(self._sent)

    def wait(self) -> None:
        """Put the sum in the gradient's place."""
        self._pending.wait()
        self._gradient.copy_(self._sent)


def begin(processes: Processes, gradient: Tensor, dtype: WireType) -> Pending | Rounded:
    """Add a gradient up over the processes, in place, once it is waited for."""
    if dtype is WireType.bf16:
        return Rounded(processes, gradient)
    return processes.begin_adding(gradient)


class PowerSGD:
    """Sums of matrices by their strongest r directions, with error feedback.

    Attributes:
        errors: by name, what this process has not sent yet [m, n].
        factors: by name, Q of the last step [n, r], the same on all processes.
    """

    def __init__(
        self, processes: Processes, parameters: Mapping[str, nn.Parameter], rank: int, seed: int
    ) -> None:
        self._processes = processes
        self.errors: dict[str, Tensor] = {}
        self.factors: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            if parameter.ndim != 2 or rank * sum(parameter.shape) > (
                _LARGEST_SHARE * parameter.numel()
            ):
                continue
            self.errors[name] = torch.zeros_like(parameter)
            draws = generator(seed, 0, f"communication.{name}")
            start = torch.randn(parameter.shape[1], rank, generator=draws)
            self.factors[name] = start.to(parameter.device)

    def takes(self, name: str) -> bool:
        """Whether this parameter's gradient is sent so."""
        return name in self.errors

    def add_up(self, gradients: Mapping[str, Tensor]) -> None:
        """Replace each gradient by the approximate sum over all processes."""
        names = list(gradients)
        for name, gradient in gradients.items():
            gradient.add_(self.errors[name])  # M = g + e
        left = self._sums({name: gradients[name] @ self.factors[name] for name in names})
        basis = {name: _orthonormal(left[name]) for name in names}
        own = {name: gradients[name].T @ basis[name] for name in names}
        right = self._sums({name: own[name].clone() for name in names})
        for name, gradient in gradients.items():
            sent = basis[name] @ own[name].T
            # A step that is not finite anywhere is skipped everywhere, and leaves no trace here.
            good = left[name].isfinite().all() & right[name].isfinite().all()
            kept = torch.where(good, gradient - sent, self.errors[name])
            self.errors[name].copy_(kept)
            self.factors[name] = torch.where(good, right[name], self.factors[name])
            torch.mm(basis[name], right[name].T, out=gradient)

    def _sums(self, parts: dict[str, Float[Tensor, "m r"]]) -> dict[str, Tensor]:
        """All of them in one message."""
        flat = torch.cat([part.flatten() for part in parts.values()])
        self._processes.add_up(flat)
        pieces = torch.split(flat, [part.numel() for part in parts.values()])
        return {
            name: piece.view_as(part)
            for (name, part), piece in zip(parts.items(), pieces, strict=True)
        }

    def load(self, factors: Mapping[str, Tensor], errors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint, also of another number of processes: errors are shared out.

        One of a process alone has none, since it sends nothing.

        Args:
            errors: of all processes [P, m, n].

        Raises:
            CheckpointError: they are not those of this model.
        """
        for name, own in self.errors.items() if errors or factors else ():
            saved = errors.get(name)
            if (
                saved is None or saved.shape[1:] != own.shape or name not in factors
                or factors[name].shape != self.factors[name].shape
            ):  # fmt: skip
                raise CheckpointError(f"the checkpoint's exchange/{name} does not fit", REMEDY)
            if len(saved) == self._processes.size:
                own.copy_(saved[self._processes.rank])
            else:
                own.copy_(saved.sum(0) / self._processes.size)
            self.factors[name].copy_(factors[name])


def _orthonormal(left: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
    """Columns of the same span, orthonormal; what is not finite stays so."""
    if not bool(left.isfinite().all()):
        return torch.full_like(left, torch.nan)
    basis: Tensor = torch.linalg.qr(left).Q
    return basis
