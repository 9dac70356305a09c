"""What every optimiser has: a schema, and one or more torch optimisers behind one `step`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lm import checks
from lm.errors import ConfigError
from lm.optim.groups import check_lr_scales, check_no_decay, torch_optimizer
from lm.optim.guard import Guard, SkipMethod
from lm.optim.state import check_complete, check_same_optimizer, restore, state_tensors
from lm.runtime.untrusted import as_list, as_number, as_text

JsonDict = dict[str, Any]


class Optimizers:
    """One or more torch optimisers that together update all parameters of a model.

    Attributes:
        guards: the torch optimisers, each wrapped so that a step can be skipped on the device.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        parameters: Mapping[str, nn.Parameter],
        *,
        lr: float,
        settings: JsonDict,
    ) -> None:
        self.guards = [Guard(optimizer) for optimizer in optimizers]
        self._parameters = dict(parameters)
        self._names: dict[Tensor, str] = {p: name for name, p in parameters.items()}
        assert len(self._names) == len(self._parameters), "a parameter has two names"
        self._base_lr = lr
        self._groups = [(g, g["lr"]) for optimizer in optimizers for g in optimizer.param_groups]
        self._settings = settings
        self._multiplier = 1.0

    @property
    def lr(self) -> float:
        """The learning rate of the next step, before any factor per group."""
        return self._base_lr * self._multiplier

    def set_lr(self, multiplier: float) -> None:
        """Set each group's learning rate to its base value × `multiplier`.

        Numbers on the host, or on the device after `keep_lr_on_device`; never a device read.
        """
        self._multiplier = multiplier
        for group, base_lr in self._groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(base_lr * multiplier)
            else:
                group["lr"] = base_lr * multiplier

    def keep_lr_on_device(self) -> None:
        """From now on each group's rate is a tensor at a fixed address, for `capturable` steps."""
        assert self.capturable
        for group, base_lr in self._groups:
            rate = torch.tensor(base_lr * self._multiplier, dtype=torch.float32)
            group["lr"] = rate.to(group["params"][0].device)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def step(self, skip: Bool[Tensor, ""], coefficient: Float[Tensor, ""] | None = None) -> None:
        """Update the parameters, or leave them and all state untouched where `skip` is true.

        Args:
            skip: on the device of the parameters; not read on the host in the steady state.
            coefficient: multiplies the gradients; None is one.
        """
        for guard in self.guards:
            guard.step(skip, coefficient)

    @property
    def takes_sparse_gradients(self) -> bool:
        """Parameters whose gradient is zero stay as they are, so zeros need not be there."""
        return all(guard.method is SkipMethod.host and guard.is_plain_sgd for guard in self.guards)

    @property
    def capturable(self) -> bool:
        """A CUDA graph can hold a step, once the state that it needs is there (`has_state`)."""
        return all(
            guard.method is SkipMethod.found_inf
            or (guard.method is SkipMethod.masked and guard.optimizer.defaults.get("capturable"))
            for guard in self.guards
        )

    @property
    def has_state(self) -> bool:
        """A step with the gradients at hand need not ask the host whether to create state."""
        return all(
            guard.method is SkipMethod.found_inf or guard.optimizer.state.get(parameter)
            for guard in self.guards
            for group in guard.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """The live state as `exp_avg/<parameter name>`: write it before the next step."""
        return state_tensors(self._torch_optimizers, self._names)

    def state_scalars(self) -> JsonDict:
        """What else is needed to go on exactly and to recognise a checkpoint that does not fit."""
        names = sorted(self.state_tensors())
        return {**self._identity, "multiplier": self._multiplier, "tensors": names}

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Continue exactly where `state_tensors` and `state_scalars` were taken.

        Raises:
            CheckpointError: another optimiser or other settings (learning rates apart), or a
                tensor is missing, unknown or misshapen; nothing has been changed then.
        """
        check_same_optimizer(scalars, self._identity)
        named = as_list(scalars.get("tensors"), "state.optimizer.tensors")
        check_complete([as_text(name, "state.optimizer.tensors") for name in named], tensors)
        multiplier = as_number(scalars.get("multiplier"), "state.optimizer.multiplier", least=0)
        restore(self._torch_optimizers, self._parameters, tensors)
        self.set_lr(multiplier)

    @property
    def _torch_optimizers(self) -> list[torch.optim.Optimizer]:
        return [guard.optimizer for guard in self.guards]

    @property
    def _identity(self) -> JsonDict:
        kinds = [type(optimizer).__name__ for optimizer in self._torch_optimizers]
        return {"kinds": kinds, "settings": self._settings}


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """What every optimiser has.

    A subclass whose fields bear the names of the torch class's arguments needs only `kind`.

    Attributes:
        kind: the `torch.optim` class.
        lr: learning rate, the peak of the schedule.
        weight_decay: as the optimiser defines it (added to the gradient, or decoupled).
        no_decay: patterns of the names of parameters without it, such as `*bias*` or `embedding.*`.
    """

    group: ClassVar[str] = "optim"
    kind: ClassVar[type[Any]]

    lr: float
    weight_decay: float = 0.0
    no_decay: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        checks.positive("optim.lr", self.lr)
        checks.non_negative("optim.weight_decay", self.weight_decay)
        if self.no_decay and not self.decays:
            raise ConfigError(
                f"optim.no_decay={self.no_decay} exempts from a weight decay that is 0",
                "Set optim.weight_decay, or drop optim.no_decay.",
            )

    @property
    def decays(self) -> bool:
        """There is a weight decay."""
        return self.weight_decay > 0

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the torch class."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "no_decay"}

    def settings(self) -> JsonDict:
        """What must not change on resume: all but learning rates, which the schedule governs."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.endswith("lr")}
        return {k: v.value if isinstance(v, Enum) else v for k, v in values.items()}

    def build(
        self, parameters: Mapping[str, nn.Parameter], *, lr_scales: Mapping[str, float] = {}
    ) -> Optimizers:
        """The optimiser over `parameters`.

        Args:
            lr_scales: factor on the learning rate by name prefix (whole dotted parts; the longest
                that matches counts), for instance `{"embedding": 0.1}` when fine-tuning.

        Raises:
            ConfigError: a prefix or a pattern matches no parameter, or a factor is negative or not
                finite.
        """
        check_lr_scales(parameters, lr_scales)
        check_no_decay(parameters, self.no_decay)
        optimizer = torch_optimizer(self.kind, parameters, lr_scales, self.options(), self.no_decay)
        return Optimizers([optimizer], parameters, lr=self.lr, settings=self.settings())
