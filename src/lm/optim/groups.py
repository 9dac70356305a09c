"""A torch optimiser over named parameters, in groups of like learning rate and weight decay."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from lm import checks
from lm.errors import ConfigError


def torch_optimizer(
    kind: type[Any],
    parameters: Mapping[str, nn.Parameter],
    lr_scales: Mapping[str, float],
    options: Mapping[str, Any],
    no_decay: Sequence[str] = (),
) -> torch.optim.Optimizer:
    """A `torch.optim` object with one group per learning-rate factor and weight decay."""
    by_treatment: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        prefixes = [prefix for prefix in lr_scales if is_prefix(prefix, name)]
        scale = lr_scales[max(prefixes, key=len)] if prefixes else 1.0
        exempt = any(fnmatchcase(name, pattern) for pattern in no_decay)
        decay = 0.0 if exempt else options["weight_decay"]
        by_treatment.setdefault((scale, decay), []).append(parameter)
    groups = [
        {"params": ps, "lr": options["lr"] * scale, "weight_decay": decay}
        for (scale, decay), ps in by_treatment.items()
    ]
    _spare_the_compiler()
    optimizer = kind(groups, **options, **_implementation(kind, parameters.values()))
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def _spare_the_compiler() -> None:
    """Keep torch from importing its compiler when the first optimiser is made.

    It does so only to keep `add_param_group` from being compiled; we compile nothing.
    """
    function = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if function is not None and not hasattr(function, "__dynamo_disable"):
        function.__dynamo_disable = function


def check_lr_scales(parameters: Mapping[str, nn.Parameter], lr_scales: Mapping[str, float]) -> None:
    """Refuse factors out of range and prefixes that match nothing.

    Raises:
        ConfigError: as said.
    """
    for prefix, factor in lr_scales.items():
        checks.non_negative(f"lr_scales.{prefix}", factor)
        if not any(is_prefix(prefix, name) for name in parameters):
            known = sorted({name.partition(".")[0] for name in parameters})
            raise ConfigError(
                f"lr_scales: no parameter is called {prefix!r} or begins with {prefix + '.'!r}",
                f"Parameters of this model begin with {', '.join(known)}.",
            )


def check_no_decay(parameters: Mapping[str, nn.Parameter], patterns: Sequence[str]) -> None:
    """Refuse patterns that match nothing.

    Raises:
        ConfigError: as said.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ConfigError(
                f"optim.no_decay: no parameter matches {pattern!r}",
                f"Parameters of this model: {', '.join(parameters)}.",
            )


def is_prefix(prefix: str, name: str) -> bool:
    """Whether a parameter's name is `prefix` or lies below it: `layers.0` has `layers.0.weight`."""
    return name == prefix or name.startswith(prefix + ".")


def _implementation(kind: type[Any], parameters: Any) -> dict[str, bool]:
    """Fused kernels where torch has them, and on a GPU counters on the device, not the host."""
    accepted = inspect.signature(kind).parameters
    devices = {parameter.device.type for parameter in parameters}
    exact = all(parameter.dtype in (torch.float32, torch.float64) for parameter in parameters)
    fused = "fused" in accepted and exact and devices <= {"cpu", "cuda"}
    # The fused kernels need not be told; the check that guards a capture asks nonetheless.
    capturable = "capturable" in accepted and devices == {"cuda"}
    wanted = {"fused": fused, "capturable": capturable}
    return {name: True for name, needed in wanted.items() if needed}
