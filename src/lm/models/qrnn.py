"""Quasi-recurrent network (Bradbury et al. 2017, equations 1 to 5): convolutions gate a fo-pooling.

    z, f, o = tanh, sigmoid, sigmoid of W_1 x_{t−k+1} + … + W_k x_t + b
    c_t     = f · c_{t−1} + (1 − f) · z
    h_t     = o · c_t

The k − 1 inputs before a window are part of the state, so that windows join without a seam. A
window is one product and a parallel scan (`kernels/scan.py`); without a recurrent matrix there is
nothing for weight and state dropout to act on.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm import checks
from lm.models.base import Cell, LayerState, Sequence
from lm.models.kernels.scan import linear_recurrence
from lm.models.recurrent_config import RecurrentConfig
from lm.models.weights import Weights, product


@dataclass(kw_only=True, slots=True)
class QRNNConfig(RecurrentConfig):
    """A QRNN language model.

    Attributes:
        filter_width: k, how many inputs a gate sees, the current one included.
    """

    filter_width: int = 2

    def __post_init__(self) -> None:
        checks.at_least("model.filter_width", self.filter_width, 1)
        checks.at_most("model.filter_width", self.filter_width, 1 << 12)
        RecurrentConfig.__post_init__(self)

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return QRNN(input_size, hidden_size, filter_width=self.filter_width)


class QRNN(Cell):
    """One QRNN layer with state {h, c, x}; gates stacked z, f, o, filters from the past to now."""

    mixed_precision: ClassVar[bool] = True
    retention: ClassVar[str | None] = "f"

    def __init__(self, input_size: int, hidden_size: int, *, filter_width: int = 2) -> None:
        super().__init__(input_size, hidden_size)
        self.filter_width = filter_width
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden_size, filter_width * input_size))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden_size))

    @property
    def state_sizes(self) -> dict[str, int]:
        past = {"x": (self.filter_width - 1) * self.input_size} if self.filter_width > 1 else {}
        return {"h": self.hidden_size, "c": self.hidden_size, **past}

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        seen = torch.cat([state["x"], x], -1) if "x" in state else x
        z, f, o = _gates(seen, weights)
        c = f * state["c"] + (1 - f) * z
        past = {"x": seen[:, self.input_size :]} if "x" in state else {}
        return {"h": o * c, "c": c, **past}, {"z": z, "f": f, "o": o}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return {
            "scan": partial(self._window, parallel=True),
            "loop": partial(self._window, parallel=False),
        }

    def _window(
        self, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights, *, parallel: bool
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        seen, past = x, {}
        if "x" in state:
            before = state["x"].view(len(state["x"]), -1, self.input_size).transpose(0, 1)
            whole = torch.cat([before, x])
            steps, width = len(x), self.filter_width
            seen = torch.cat([whole[k : k + steps] for k in range(width)], -1)
            past = {"x": seen[-1, :, self.input_size :]}
        z, f, o = _gates(seen, weights)
        c = linear_recurrence(f, (1 - f) * z, state["c"], parallel=parallel)
        y = o * c
        return y, {"h": y[-1], "c": c[-1], **past}


def _gates(seen: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """z, f, o [..., H] from the inputs that they see [..., k·I]."""
    z, f, o = product(seen, weights, "weight_ih", "bias_ih").chunk(3, dim=-1)
    return z.tanh(), f.sigmoid(), o.sigmoid()
