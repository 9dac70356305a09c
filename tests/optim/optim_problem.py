"""A small deterministic problem that every optimiser is tested on, and all optimisers to test."""

import torch
from torch import Tensor, nn

from lm.optim.base import OptimConfig, Optimizers
from lm.optim.guard import Guard, SkipMethod
from lm.optim.muon import LrAdjustment, MuonConfig
from lm.optim.optimizers import (
    AdadeltaConfig,
    AdafactorConfig,
    AdagradConfig,
    AdamaxConfig,
    AdamConfig,
    AdamWConfig,
    ASGDConfig,
    NAdamConfig,
    RAdamConfig,
    RMSpropConfig,
    SGDConfig,
)

GO = torch.tensor(False)
SKIP = torch.tensor(True)

CONFIGS: dict[str, OptimConfig] = {
    "plain_sgd": SGDConfig(lr=0.1),
    "sgd": SGDConfig(lr=0.1, weight_decay=0.01),
    "momentum": SGDConfig(lr=0.1, momentum=0.9),
    "nesterov": SGDConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": AdamConfig(lr=0.01, beta1=0.8, beta2=0.98, weight_decay=0.1),
    "amsgrad": AdamConfig(lr=0.01, amsgrad=True),
    "adamw": AdamWConfig(lr=0.01, beta1=0.8, beta2=0.98, eps=1e-6, weight_decay=0.1),
    "nadam": NAdamConfig(momentum_decay=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": RAdamConfig(lr=0.01, beta2=0.9, weight_decay=0.1),
    "adamax": AdamaxConfig(lr=0.01, beta1=0.8, weight_decay=0.1),
    "adagrad": AdagradConfig(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1, weight_decay=0.1),
    "adadelta": AdadeltaConfig(lr=0.5, rho=0.8, weight_decay=0.1),
    "rmsprop": RMSpropConfig(lr=0.01, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.1),
    "asgd": ASGDConfig(lr=0.1, lambd=0.01, alpha=0.5, t0=2.0, weight_decay=0.1),
    "adafactor": AdafactorConfig(lr=0.1, decay_exponent=0.7, clip_threshold=2.0, weight_decay=0.1),
    "muon": MuonConfig(
        weight_decay=0.1, lr_adjustment=LrAdjustment.match_rms_adamw, adamw_weight_decay=0.01
    ),
}


def make_parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    """Matrices, a transposed one, a vector and a row, named as in a model."""
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64).to(dtype)

    values = {
        "embedding.weight": normal(7, 4),
        "layers.0.weight": normal(6, 4),
        "layers.0.transposed": normal(6, 8).t(),
        "layers.0.bias": normal(6),
        "layers.0.h0": normal(1, 6),
        "head.weight": normal(7, 6),
    }
    return {name: nn.Parameter(value) for name, value in values.items()}


def set_gradients(parameters: dict[str, nn.Parameter], step: int) -> None:
    """A smooth function of the parameters plus noise that depends on the step alone."""
    draws = torch.Generator().manual_seed(100 + step)
    for parameter in parameters.values():
        noise = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
        parameter.grad = parameter.detach().sin() + 0.3 * noise.to(parameter.dtype)


def use_method(optimizers: Optimizers, method: SkipMethod) -> bool:
    """Let all parts skip by `method`; false where a part has no fused kernel for it."""
    for guard in optimizers.guards:
        fused = bool(guard.optimizer.param_groups[0].get("fused"))
        if method is SkipMethod.found_inf and not fused:
            return False
    optimizers.guards = [Guard(guard.optimizer, method) for guard in optimizers.guards]
    return True


def train(
    parameters: dict[str, nn.Parameter], optimizers: Optimizers, start: int, stop: int
) -> None:
    """Steps start … stop − 1 under a decaying learning rate."""
    for step in range(start, stop):
        optimizers.set_lr(1.0 / (1.0 + 0.1 * step))
        optimizers.zero_grad()
        set_gradients(parameters, step)
        optimizers.step(GO)


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names whose tensors are not equal to the last bit, or exist on one side only."""
    return [
        name
        for name in sorted(a.keys() | b.keys())
        if name not in a
        or name not in b
        or a[name].dtype != b[name].dtype
        or not torch.equal(a[name], b[name])
    ]
