"""Averages of the weights over training steps, which are what is validated, saved and used.

The iterates go on as if there were no average. Averaging may wait for a plateau: with plain SGD
that is NT-ASGD (Merity et al. 2018, algorithm 1).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from lm import checks
from lm.errors import CheckpointError
from lm.runtime.untrusted import (
    REMEDY,
    as_flag,
    as_list,
    as_number,
    check_names,
)
from lm.runtime.untrusted_tensors import check_tensors


class AverageKind(Enum):
    """mean: of all iterates since the start (Polyak & Juditsky 1992); ema: exponential."""

    mean = "mean"
    ema = "ema"


@dataclass(kw_only=True, slots=True)
class AveragingConfig:
    """Averaging of weights.

    Attributes:
        kind: None is off.
        decay: of the exponential average; at first it is the mean of what there is.
        start_epoch: epochs before averaging may begin.
        nonmonotone: begin only when a validation is worse than the best of those at least this
            many validations ago; None is at once.
    """

    kind: AverageKind | None = None
    decay: float = 0.999
    start_epoch: int = 0
    nonmonotone: int | None = None

    def __post_init__(self) -> None:
        checks.fraction("trainer.averaging.decay", self.decay)
        checks.at_least("trainer.averaging.start_epoch", self.start_epoch, 0)
        checks.at_least("trainer.averaging.nonmonotone", self.nonmonotone, 0)
        if self.kind is None:
            checks.no_effect(
                "trainer.averaging", self, ("decay", "start_epoch", "nonmonotone"),
                "kind=null averages nothing", "Set trainer.averaging.kind=mean or ema",
            )  # fmt: skip
        if self.kind is AverageKind.mean:
            checks.no_effect(
                "trainer.averaging", self, ("decay",),
                "kind=mean weighs all iterates alike", "Set trainer.averaging.kind=ema",
            )  # fmt: skip


class Averages:
    """The averages of some parameters, kept on their device.

    Attributes:
        tensors: the averages by name; empty until averaging begins.
    """

    def __init__(self, config: AveragingConfig, parameters: Mapping[str, nn.Parameter]) -> None:
        self._config = config
        self._parameters = dict(parameters)
        self._losses: list[float] = []
        self._count = torch.zeros(())
        self.tensors: dict[str, Tensor] = {}

    @property
    def active(self) -> bool:
        """Averaging has begun."""
        return bool(self.tensors)

    def begin_if_due(self, epochs_done: float) -> bool:
        """Begin once the start epoch is reached, if averaging waits for nothing else."""
        waits = self._config.kind is None or self._config.nonmonotone is not None
        if self.active or waits or epochs_done < self._config.start_epoch:
            return False
        self._begin()
        return True

    def observe(self, loss: float, epochs_done: float) -> bool:
        """Take note of a validation loss; whether averaging begins with it."""
        patience = self._config.nonmonotone
        if self._config.kind is None or patience is None or self.active:
            return False
        earlier = self._losses[: len(self._losses) - patience]
        worse = bool(earlier) and not loss <= min(earlier)  # a NaN is worse
        self._losses.append(loss)
        if not worse or epochs_done < self._config.start_epoch:
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        device = next(iter(self._parameters.values())).device
        self._count = torch.zeros((), device=device)
        self.tensors = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, skip: Bool[Tensor, ""]) -> None:
        """Take the iterates of a step into the averages, unless it was skipped; reads no device."""
        if not self.active:
            return
        self._count += ~skip
        share = 1.0 / self._count.clamp(min=1)
        if self._config.kind is AverageKind.ema:
            share = share.clamp(min=1 - self._config.decay)
        share = torch.where(skip, 0.0, share)
        averages = list(self.tensors.values())
        iterates = [parameter.detach() for parameter in self._parameters.values()]
        if share.device.type == "cpu":  # where a number costs nothing to read
            torch._foreach_lerp_(averages, iterates, float(share))
            return
        steps = torch._foreach_sub(iterates, averages)
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(averages, steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in the parameters' places, for validation; their addresses stay."""
        if not self.active:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            held = self.tensors[name].clone()
            self.tensors[name].copy_(parameter.data)
            parameter.data.copy_(held)

    def iterates(self) -> dict[str, Tensor]:
        """The parameters themselves, where the averages are saved in their place, and the count."""
        if not self.active:
            return {}
        return {"count": self._count, **{n: p.detach() for n, p in self._parameters.items()}}

    def state(self) -> dict[str, Any]:
        """What the start depends on, as JSON, where null is a loss that was no number."""
        losses = [loss if math.isfinite(loss) else None for loss in self._losses]
        return {"active": self.active, "losses": losses}

    def load(self, state: Mapping[str, Any], iterates: Mapping[str, Tensor]) -> None:
        """Go on where `iterates` and `state` were taken; the parameters hold what was saved.

        Raises:
            CheckpointError: they are not what `state` and `iterates` give.
        """
        check_names(set(state), {"active", "losses"}, "state.averaging")
        losses = as_list(state["losses"], "state.averaging.losses")
        active = as_flag(state["active"], "state.averaging.active")
        if active and self._config.kind is None:
            raise CheckpointError("the checkpoint has averages, this run takes none", REMEDY)
        own = {"count": self._count, **self._parameters} if active else {}
        check_tensors(iterates, own, "iterate")
        for name, value in iterates.items():
            if not bool(value.isfinite().all()) or (name == "count" and value < 0):
                raise CheckpointError(f"the checkpoint's iterate/{name} is no number", REMEDY)
        self._losses = [
            math.nan if loss is None else as_number(loss, "state.averaging.losses")
            for loss in losses
        ]
        if not active:
            return
        self._begin()
        self._count.copy_(iterates["count"])
        for name, parameter in self._parameters.items():
            parameter.data.copy_(iterates[name])
