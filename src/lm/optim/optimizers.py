"""The optimisers: a typed schema for each, the algorithm from `torch.optim`.

Field names and defaults are torch's unless a docstring says otherwise; pairs are two fields.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lm import checks
from lm.errors import ConfigError
from lm.optim.base import OptimConfig
from lm.optim.muon import MuonConfig


@dataclass(kw_only=True, slots=True)
class SGDConfig(OptimConfig):
    """Stochastic gradient descent, with (Nesterov) momentum where asked.

    The default rate is that of word-level language models whose gradients are clipped to norm
    0.25 (pytorch/examples); without clipping it diverges.

    Attributes:
        momentum: decay of the running sum of gradients that is stepped along; 0 is off.
        nesterov: step along that sum as it will be after the next gradient; needs `momentum`.
    """

    kind: ClassVar[type[Any]] = torch.optim.SGD

    lr: float = 20.0
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.fraction("optim.momentum", self.momentum)
        if self.nesterov and not self.momentum:
            cause = f"optim.nesterov=true needs optim.momentum > 0, got {self.momentum!r}"
            raise ConfigError(cause, "Set optim.momentum=0.9 or optim.nesterov=false.")


@dataclass(kw_only=True, slots=True)
class MomentsConfig(OptimConfig):
    """What the Adam family shares.

    Attributes:
        beta1: decay of the running mean of gradients, in [0, 1).
        beta2: decay of the running second moment (Adamax: infinity norm), in [0, 1).
        eps: added to the denominator; > 0, since rows of an embedding may never see a gradient.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.fraction("optim.beta1", self.beta1)
        checks.fraction("optim.beta2", self.beta2)
        checks.positive("optim.eps", self.eps)

    def options(self) -> dict[str, Any]:
        options = OptimConfig.options(self)
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
        return options


@dataclass(kw_only=True, slots=True)
class AdamConfig(MomentsConfig):
    """Adam (Kingma & Ba 2015), or AMSGrad (Reddi et al. 2018).

    Attributes:
        amsgrad: divide by the largest second moment so far instead of the present one.
    """

    kind: ClassVar[type[Any]] = torch.optim.Adam

    lr: float = 1e-3
    amsgrad: bool = False


@dataclass(kw_only=True, slots=True)
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: ClassVar[type[Any]] = torch.optim.AdamW

    weight_decay: float = 0.01


@dataclass(kw_only=True, slots=True)
class NAdamConfig(MomentsConfig):
    """Adam with Nesterov momentum (Dozat 2016).

    Attributes:
        momentum_decay: ψ: β1 is warmed up as β1 (1 − ½ · 0.96^(t ψ)).
        decoupled_weight_decay: decay as in AdamW, instead of adding it to the gradient.
    """

    kind: ClassVar[type[Any]] = torch.optim.NAdam

    lr: float = 2e-3
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    def __post_init__(self) -> None:
        MomentsConfig.__post_init__(self)
        checks.non_negative("optim.momentum_decay", self.momentum_decay)


@dataclass(kw_only=True, slots=True)
class RAdamConfig(MomentsConfig):
    """Rectified Adam: its own warm-up by the variance of the second moment (Liu et al. 2020).

    Attributes:
        decoupled_weight_decay: decay as in AdamW, instead of adding it to the gradient.
    """

    kind: ClassVar[type[Any]] = torch.optim.RAdam

    lr: float = 1e-3
    decoupled_weight_decay: bool = False


@dataclass(kw_only=True, slots=True)
class AdamaxConfig(MomentsConfig):
    """Adam with the infinity norm (Kingma & Ba 2015, section 7)."""

    kind: ClassVar[type[Any]] = torch.optim.Adamax

    lr: float = 2e-3


@dataclass(kw_only=True, slots=True)
class AdagradConfig(OptimConfig):
    """Rates that shrink with the squares seen so far (Duchi et al. 2011).

    Attributes:
        lr_decay: η of the rate at step t: lr / (1 + (t − 1) η).
        initial_accumulator_value: what the sum of squares begins with.
        eps: added to the denominator.
    """

    kind: ClassVar[type[Any]] = torch.optim.Adagrad

    lr: float = 1e-2
    lr_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.non_negative("optim.lr_decay", self.lr_decay)
        checks.non_negative("optim.initial_accumulator_value", self.initial_accumulator_value)
        checks.positive("optim.eps", self.eps)


@dataclass(kw_only=True, slots=True)
class AdadeltaConfig(OptimConfig):
    """Adagrad with a decaying window and no unit of its own (Zeiler 2012).

    Attributes:
        rho: decay of the running means of squares, of gradients and of updates.
        eps: added below both roots.
    """

    kind: ClassVar[type[Any]] = torch.optim.Adadelta

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.fraction("optim.rho", self.rho)
        checks.positive("optim.eps", self.eps)


@dataclass(kw_only=True, slots=True)
class RMSpropConfig(OptimConfig):
    """Division by a running root mean square (Hinton 2012; centred: Graves 2013, eq. 38-45).

    Attributes:
        alpha: decay of the running mean of squares.
        eps: added to the denominator.
        momentum: decay of the running sum of scaled gradients; 0 is off.
        centered: subtract the square of the running mean: divide by the standard deviation.
    """

    kind: ClassVar[type[Any]] = torch.optim.RMSprop

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.fraction("optim.alpha", self.alpha)
        checks.positive("optim.eps", self.eps)
        checks.fraction("optim.momentum", self.momentum)


@dataclass(kw_only=True, slots=True)
class ASGDConfig(OptimConfig):
    """Averaged stochastic gradient descent (Polyak & Juditsky 1992).

    The average over steps is kept in the state (`ax`); the parameters are the plain iterates. As
    in torch, the rate of a step is the one set before the previous step (the first has its own).

    Attributes:
        lambd: decay per step, of the weights and of the rate.
        alpha: power of the rate's decay.
        t0: step after which averaging begins.
    """

    kind: ClassVar[type[Any]] = torch.optim.ASGD

    lr: float = 1e-2
    lambd: float = 1e-4
    alpha: float = 0.75
    t0: float = 1e6

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.non_negative("optim.lambd", self.lambd)
        checks.non_negative("optim.alpha", self.alpha)
        checks.non_negative("optim.t0", self.t0)


@dataclass(kw_only=True, slots=True)
class AdafactorConfig(OptimConfig):
    """Adam with a second moment of rows + columns (Shazeer & Stern 2018); reads the device often.

    Attributes:
        lr: upper bound of the relative step size.
        decay_exponent: c in β2_t = 1 − t^(−c).
        eps1: floor of the second moment's root; off means the machine epsilon.
        eps2: floor of the parameter scale.
        clip_threshold: d, the largest root mean square of an update.
    """

    kind: ClassVar[type[Any]] = torch.optim.Adafactor

    lr: float = 1e-2
    decay_exponent: float = 0.8
    eps1: float | None = None
    eps2: float = 1e-3
    clip_threshold: float = 1.0

    def __post_init__(self) -> None:
        OptimConfig.__post_init__(self)
        checks.non_negative("optim.decay_exponent", self.decay_exponent)
        checks.positive("optim.eps1", self.eps1)
        checks.positive("optim.eps2", self.eps2)
        checks.finite("optim.clip_threshold", self.clip_threshold)
        checks.at_least("optim.clip_threshold", self.clip_threshold, 1)

    def options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "beta2_decay": -self.decay_exponent,
            "eps": (self.eps1, self.eps2),
            "d": self.clip_threshold,
        }


OPTIMIZERS: dict[str, type[OptimConfig]] = {
    "sgd": SGDConfig,
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "nadam": NAdamConfig,
    "radam": RAdamConfig,
    "adamax": AdamaxConfig,
    "adagrad": AdagradConfig,
    "adadelta": AdadeltaConfig,
    "rmsprop": RMSpropConfig,
    "asgd": ASGDConfig,
    "adafactor": AdafactorConfig,
    "muon": MuonConfig,
}
