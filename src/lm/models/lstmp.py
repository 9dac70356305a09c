"""LSTM with a recurrent projection (Sak, Senior & Beaufays 2014, equations 7 to 13, no peepholes).

    i, f, o, g  from x_t and h_{t−1} as in the LSTM;  c_t = f · c_{t−1} + i · g
    h_t = W_r (o · tanh(c_t))

The state h has P < H units, so the recurrent matrix and the next layer's are P wide: memory cells
without the weights. It runs by cuDNN on a GPU where that is the fastest, else by the loop
with prepared products (`Cell.loops`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm import checks
from lm.errors import ConfigError
from lm.models.base import Cell, LayerState, Sequence
from lm.models.lstm import LSTM, LSTMConfig, activate
from lm.models.recurrent_config import MAX_SIZE
from lm.models.weights import Weights, input_product, kernel_weights, product, recurrent_product


@dataclass(kw_only=True, slots=True)
class LSTMPConfig(LSTMConfig):
    """An LSTM with projection.

    Attributes:
        projection_size: P, the size of h and of every layer's output; None is half of H.
    """

    projection_size: int | None = None

    def __post_init__(self) -> None:
        checks.at_least("model.projection_size", self.projection_size, 1)
        checks.at_most("model.projection_size", self.projection_size, MAX_SIZE)
        LSTMConfig.__post_init__(self)
        if self.parameters is None and min(self.sizes) < self.smallest_size:
            raise ConfigError(
                f"model.projection_size={self.projection_size} must be smaller than the "
                f"{min(self.sizes)} cells that it projects",
                "Set a smaller model.projection_size, or model=lstm.",
            )

    @property
    def smallest_size(self) -> int:
        return (self.projection_size or 0) + 1

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return LSTMP(
            input_size,
            hidden_size,
            self.projection_size or max(1, hidden_size // 2),
            num_biases=self.num_biases,
            forget_bias=self.forget_bias,
            chrono_max=self.chrono_max,
        )


class LSTMP(LSTM):
    """One projected LSTM layer with state {h [B, P], c [B, H]}."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        projection_size: int,
        *,
        num_biases: int = 2,
        forget_bias: float | None = None,
        chrono_max: int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_biases=num_biases,
            forget_bias=forget_bias,
            chrono_max=chrono_max,
        )
        self.projection_size = projection_size
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, projection_size))
        self.weight_hr = nn.Parameter(torch.empty(projection_size, hidden_size))

    @property
    def output_size(self) -> int:
        return self.projection_size

    @property
    def state_sizes(self) -> dict[str, int]:
        return {"h": self.projection_size, "c": self.hidden_size}

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        i, f, g, o = activate(input_product(x, weights) + recurrent_product(state["h"], weights))
        c = f * state["c"] + i * g
        h = product(o * c.tanh(), weights, "weight_hr")
        return {"h": h, "c": c}, {"i": i, "f": f, "g": g, "o": o}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        # On the CPU torch has no fast kernel for it either, and warns.
        own: dict[str, Sequence] = {"torch": _torch} if weights["weight_hh"].is_cuda else {}
        return own | self.loops(weights)


def _torch(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B P"], LayerState]:
    """torch's own kernel."""
    kernel = [*kernel_weights(weights), weights["weight_hr"]]
    dtype = kernel[0].dtype
    start = state["h"][None].to(dtype), state["c"][None].to(dtype)
    y, h, c = torch.lstm(
        x.to(dtype), start, kernel, len(kernel) == 5, 1, 0.0, torch.is_grad_enabled(), False, False
    )
    return y, {"h": h[0].to(state["h"].dtype), "c": c[0].to(state["c"].dtype)}
