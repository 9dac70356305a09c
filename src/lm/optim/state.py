"""Optimiser state as named tensors, saved and restored to the last bit.

Not `Optimizer.load_state_dict`: it casts state to the parameter's dtype and finds parameters by
their position, so that counters lose precision and a reordered model loads silently.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lm.errors import CheckpointError

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
        CheckpointError: a tensor belongs to no parameter or has an impossible shape; nothing has
            been changed then.
    """
    for name, value in tensors.items():
        _check_tensor(name, value, parameters)
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
    if saved.get("kinds") != present["kinds"]:
        ours, theirs = (" + ".join(x.get("kinds", ["unknown"])) for x in (present, saved))
        raise CheckpointError(f"the checkpoint's optimizer is {theirs}, this run's {ours}", _REMEDY)
    for name, value in present["settings"].items():
        other = saved.get("settings", {}).get(name)
        if other != value:
            raise CheckpointError(
                f"optim.{name} is {value!r}, but the checkpoint was written with {other!r}",
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


def _check_tensor(name: str, value: Tensor, parameters: Mapping[str, nn.Parameter]) -> None:
    parameter = parameters.get(name.partition("/")[2])
    if parameter is None:
        raise CheckpointError(f"optimizer state {name} belongs to no parameter", _REMEDY)
    shape = parameter.shape
    row_factor, column_factor = (*shape[:-1], 1), (*shape[:-2], 1, *shape[-1:])
    if tuple(value.shape) not in {(), tuple(shape), row_factor, column_factor}:
        raise CheckpointError(
            f"optimizer state {name} has shape {list(value.shape)}, its parameter {list(shape)}",
            _REMEDY,
        )


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
