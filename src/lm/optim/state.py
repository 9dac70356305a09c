"""Optimiser state as named tensors, saved and restored to the last bit.

Not `Optimizer.load_state_dict`: it casts state to the parameter's dtype and finds parameters by
their position, so that counters lose precision and a reordered model loads silently.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from lm.errors import CheckpointError
from lm.optim.guard import Guard
from lm.runtime.untrusted import as_object, check_names, shown

# What torch keeps as one number per parameter, in host memory unless told otherwise.
_COUNTERS = frozenset({"step", "mu_product", "eta", "mu"})
_REMEDY = (
    "Resume with the configuration of the checkpoint, "
    "or start a new run from its weights with init_from=."
)


def state_tensors(
    optimizers: Sequence[torch.optim.Optimizer], names: Mapping[Tensor, str]
) -> dict[str, Tensor]:
    """The live state as `exp_avg/layers.0.weight` and the like: write it before the next step."""
    tensors = {}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                assert isinstance(value, Tensor), f"{type(optimizer).__name__}.{key}"
                tensors[f"{key}/{names[parameter]}"] = value.detach().contiguous()
    return tensors


def restore(
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Replace the state of all `optimizers` by copies of `tensors`, dtype and bits as saved.

    Raises:
        CheckpointError: a tensor belongs to no parameter, or is not what its optimiser keeps of
            one; nothing has been changed then.
    """
    states = _by_parameter(tensors, parameters)
    names = {parameter: name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            kept = cache(partial(_kept, optimizer, group))
            for parameter in group["params"]:
                name = names[parameter]
                if name in states:  # there is none before the first step
                    _check_state(name, parameter, states[name], kept(parameter.ndim))
    owners = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    for optimizer in optimizers:
        optimizer.state.clear()
    for name, value in tensors.items():
        key, _, parameter_name = name.partition("/")
        parameter = parameters[parameter_name]
        optimizer = owners[parameter]
        optimizer.state[parameter][key] = _placed(key, value, parameter, optimizer)


def check_same_optimizer(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Compare kind and settings of the optimiser at hand with those of the checkpoint.

    Raises:
        CheckpointError: naming the first difference.
    """
    kinds = saved.get("kinds", "unknown")
    if kinds != present["kinds"]:
        theirs = " + ".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds)
        raise CheckpointError(
            f"the checkpoint's optimizer is {theirs}, this run's {' + '.join(present['kinds'])}",
            _REMEDY,
        )
    settings = as_object(saved.get("settings", {}), "state.optimizer.settings")
    for name, value in present["settings"].items():
        other = settings.get(name)
        if other != value:
            raise CheckpointError(
                f"optim.{name} is {value!r}, but the checkpoint was written with {shown(other)}",
                _REMEDY,
            )


def check_complete(expected: Iterable[str], found: Iterable[str]) -> None:
    """Compare the names of the tensors that were saved with those that were found.

    Raises:
        CheckpointError: naming one that is missing or too many.
    """
    for problem, names in (
        ("lacks", set(expected) - set(found)),
        ("holds unexpected", set(found) - set(expected)),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                f"the checkpoint {problem} optimizer state: {min(names)}{more}",
                "Use another checkpoint; this one is incomplete.",
            )


def _by_parameter(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        key, _, parameter = name.partition("/")
        if parameter not in parameters:
            raise CheckpointError(f"optimizer state {name} belongs to no parameter", _REMEDY)
        states.setdefault(parameter, {})[key] = value
    return states


def _kept(optimizer: torch.optim.Optimizer, group: dict[str, Any], ndim: int) -> dict[str, Tensor]:
    """What an optimiser keeps of a parameter with the sizes 2, 3, …: it takes a step and shows.

    No optimiser of torch's says so otherwise, and it depends on settings and dimensions.
    """
    like = group["params"][0]
    sizes = tuple(range(2, 2 + ndim))
    parameter = nn.Parameter(torch.ones(sizes, dtype=like.dtype, device=like.device))
    parameter.grad = torch.ones_like(parameter)
    twin = object.__new__(type(optimizer))
    twin.__dict__.update(optimizer.__dict__)
    twin.state = defaultdict(dict)
    twin.param_groups = [{**group, "params": [parameter]}]
    Guard(twin).step(torch.zeros((), dtype=torch.bool, device=like.device))
    return dict(twin.state[parameter])


def _check_state(
    name: str, parameter: Tensor, found: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> None:
    check_names(set(found), set(kept), f"optimizer state of {name}")
    sizes = (0, 1, *parameter.shape)  # size k of the example stands for the one at k
    for key, example in kept.items():
        value = found[key]
        shape = tuple(sizes[k] if k < len(sizes) else k for k in example.shape)
        if value.shape != shape:
            raise CheckpointError(
                f"optimizer state {key}/{name} has shape {list(value.shape)}, "
                f"its parameter {list(parameter.shape)}",
                _REMEDY,
            )
        if value.dtype != example.dtype:
            raise CheckpointError(
                f"optimizer state {key}/{name} is {value.dtype}, not {example.dtype}", _REMEDY
            )
        if not value.shape and not bool(value.isfinite() & (value >= 0)):
            raise CheckpointError(f"optimizer state {key}/{name} is {value.item()}", _REMEDY)


def _placed(
    key: str, value: Tensor, parameter: nn.Parameter, optimizer: torch.optim.Optimizer
) -> Tensor:
    """A copy on the device, and with the strides, that the optimiser itself would have chosen."""
    group = optimizer.param_groups[0]
    if key in _COUNTERS:
        beside_parameter = (
            group.get("fused") or group.get("capturable") or isinstance(optimizer, torch.optim.ASGD)
        )
        return value.to(parameter.device if beside_parameter else "cpu", copy=True)
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device, copy=True)
