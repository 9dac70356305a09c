"""Muon for the hidden matrices, AdamW for everything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import nn

from lm import checks
from lm.optim.base import OptimConfig, Optimizers
from lm.optim.groups import check_lr_scales, check_no_decay, torch_optimizer

_NOT_HIDDEN = ("embedding", "head")


class LrAdjustment(Enum):
    """How an update of spectral norm 1 is scaled by the shape [A, B] of its matrix.

    original: √max(1, A/B) (Jordan 2024).
    match_rms_adamw: 0.2 √max(A, B), so that AdamW's learning rates fit (Liu et al. 2025).
    """

    original = "original"
    match_rms_adamw = "match_rms_adamw"


@dataclass(kw_only=True, slots=True)
class MuonConfig(OptimConfig):
    """Momentum orthogonalised by a Newton-Schulz iteration (Jordan et al. 2024).

    Applies to the hidden matrices: every 2-D parameter that is more than one row or column and
    whose name begins neither with `embedding` nor with `head`. The gates of a cell lie stacked in
    one matrix and are orthogonalised together. The rest takes AdamW steps, whose fields begin
    with `adamw_`; both follow the same schedule.

    Attributes:
        momentum: decay of the running sum of gradients that is orthogonalised.
        nesterov: orthogonalise that sum as it will be after the next gradient.
        lr_adjustment: how an update is scaled by the shape [A, B] of its matrix: `original` by
            √max(1, A/B), `match_rms_adamw` by 0.2 √max(A, B), so that AdamW's rates fit.
        adamw_lr, adamw_weight_decay: of the AdamW steps.
        adamw_beta1, adamw_beta2: decay of their running mean and second moment.
        adamw_eps: added to their denominator.
    """

    kind: ClassVar[type[Any]] = torch.optim.Muon

    lr: float = 0.02
    momentum: float = 0.95
    nesterov: bool = True
    lr_adjustment: LrAdjustment = LrAdjustment.original
    adamw_lr: float = 1e-3
    adamw_weight_decay: float = 0.0
    adamw_beta1: float = 0.9
    adamw_beta2: float = 0.999
    adamw_eps: float = 1e-8

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.fraction("optim.momentum", self.momentum)
        checks.positive("optim.adamw_lr", self.adamw_lr)
        checks.non_negative("optim.adamw_weight_decay", self.adamw_weight_decay)
        checks.fraction("optim.adamw_beta1", self.adamw_beta1)
        checks.fraction("optim.adamw_beta2", self.adamw_beta2)
        checks.positive("optim.adamw_eps", self.adamw_eps)

    @property
    def decays(self) -> bool:
        return self.weight_decay > 0 or self.adamw_weight_decay > 0

    def options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "adjust_lr_fn": self.lr_adjustment.value,
        }

    def adamw_options(self) -> dict[str, Any]:
        """The keyword arguments of the AdamW part."""
        return {
            "lr": self.adamw_lr,
            "weight_decay": self.adamw_weight_decay,
            "betas": (self.adamw_beta1, self.adamw_beta2),
            "eps": self.adamw_eps,
        }

    def build(
        self, parameters: Mapping[str, nn.Parameter], *, lr_scales: Mapping[str, float] = {}
    ) -> Optimizers:
        """The pair of optimisers; a part without parameters is left out."""
        check_lr_scales(parameters, lr_scales)
        check_no_decay(parameters, self.no_decay)
        hidden = {n: p for n, p in parameters.items() if _is_hidden_matrix(n, p)}
        rest = {n: p for n, p in parameters.items() if n not in hidden}
        parts = (
            (torch.optim.Muon, hidden, self.options()),
            (torch.optim.AdamW, rest, self.adamw_options()),
        )
        optimizers = [
            torch_optimizer(k, ps, lr_scales, o, self.no_decay) for k, ps, o in parts if ps
        ]
        return Optimizers(optimizers, parameters, lr=self.lr, settings=self.settings())


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) > 1 and not name.startswith(_NOT_HIDDEN)
