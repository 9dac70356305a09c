"""minGRU and minLSTM (Feng et al. 2024, Were RNNs all we needed?): gates that do not see the state.

    minGRU   z = sigmoid(W_z x_t + b_z)                       h_t = (1 − z) h_{t−1} + z g(W x_t + b)
    minLSTM  f, i = sigmoid(W x_t + b), f' = f / (f + i), i' = i / (f + i)
                                                              h_t = f' h_{t−1} + i' g(W x_t + b)

g(x) = x + 0.5 for x ≥ 0, sigmoid(x) below: the positive candidate of the paper's appendix B.3. A
window is one product and a parallel scan (`kernels/scan.py`); without a recurrent matrix there is
nothing for weight and state dropout to act on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lm import checks
from lm.models.base import Cell, LayerState, Sequence
from lm.models.init import chrono_bias
from lm.models.kernels.scan import linear_recurrence
from lm.models.recurrent_config import RecurrentConfig
from lm.models.weights import Weights, input_product


@dataclass(kw_only=True, slots=True)
class MinGRUConfig(RecurrentConfig):
    """A minGRU language model.

    Attributes:
        chrono_max: longest lag for chrono initialisation of the update gate's bias; None is off.
    """

    transient: ClassVar[frozenset[str]] = RecurrentConfig.transient | {"chrono_max"}

    chrono_max: int | None = None

    def __post_init__(self) -> None:
        RecurrentConfig.__post_init__(self)
        checks.at_least("model.chrono_max", self.chrono_max, 3)

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return MinGRU(input_size, hidden_size, chrono_max=self.chrono_max)


@dataclass(kw_only=True, slots=True)
class MinLSTMConfig(RecurrentConfig):
    """A minLSTM language model.

    Attributes:
        forget_bias: the forget gate's bias at the start; None leaves it to `init.bias`.
    """

    transient: ClassVar[frozenset[str]] = RecurrentConfig.transient | {"forget_bias"}

    forget_bias: float | None = 1.0

    def __post_init__(self) -> None:
        RecurrentConfig.__post_init__(self)
        checks.finite("model.forget_bias", self.forget_bias)

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return MinLSTM(input_size, hidden_size, forget_bias=self.forget_bias)


class _MinCell(Cell):
    """h_t = keep · h_{t−1} + take · g, all three from x_t alone; state {h}."""

    mixed_precision: ClassVar[bool] = True
    retention: ClassVar[str | None] = "keep"
    num_gates: ClassVar[int]

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        rows = self.num_gates * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(rows, input_size))
        self.bias_ih = nn.Parameter(torch.empty(rows))

    def gates(self, pre_activations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """keep, take and g [..., H], from what the product gives [..., G·H]."""
        raise NotImplementedError

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        keep, take, g = self.gates(input_product(x, weights))
        return {"h": keep * state["h"] + take * g}, {"keep": keep, "take": take, "g": g}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return {
            "scan": partial(self._window, parallel=True),
            "loop": partial(self._window, parallel=False),
        }

    def _window(
        self, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights, *, parallel: bool
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        keep, take, g = self.gates(input_product(x, weights))
        h = linear_recurrence(keep, take * g, state["h"], parallel=parallel)
        return h, {"h": h[-1]}


class MinGRU(_MinCell):
    """One minGRU layer; gates stacked z, g."""

    num_gates: ClassVar[int] = 2

    def __init__(self, input_size: int, hidden_size: int, *, chrono_max: int | None = None) -> None:
        super().__init__(input_size, hidden_size)
        self.chrono_max = chrono_max

    def gates(self, pre_activations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, g = pre_activations.chunk(2, dim=-1)
        # 1 − sigmoid(z) is sigmoid(−z), without losing digits where z is large.
        return (-z).sigmoid(), z.sigmoid(), positive(g)

    def reset_bias(self, draws: Callable[[str], Generator]) -> None:
        if self.chrono_max is not None:
            z = self.bias_ih.data[: self.hidden_size]
            z.copy_(-chrono_bias(self.hidden_size, self.chrono_max, draws("chrono")))


class MinLSTM(_MinCell):
    """One minLSTM layer; gates stacked i, f, g."""

    num_gates: ClassVar[int] = 3

    def __init__(
        self, input_size: int, hidden_size: int, *, forget_bias: float | None = None
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.forget_bias = forget_bias

    def gates(self, pre_activations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i, f, g = pre_activations.chunk(3, dim=-1)
        i, f = i.sigmoid(), f.sigmoid()
        return f / (f + i), i / (f + i), positive(g)

    def reset_bias(self, draws: Callable[[str], Generator]) -> None:
        if self.forget_bias is not None:
            size = self.hidden_size
            self.bias_ih.data[size : 2 * size].fill_(self.forget_bias)


def positive(x: Tensor) -> Tensor:
    """g: x + 0.5 for x ≥ 0, sigmoid(x) below."""
    return torch.where(x >= 0, x + 0.5, x.sigmoid())
