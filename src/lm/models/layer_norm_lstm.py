"""Layer-normalised LSTM (Ba, Kiros & Hinton 2016, Layer normalization, equations 20 to 22).

    i, f, o, g pre-activations = LN(W x_t; α_x) + LN(U h_{t−1}; α_h) + b
    c_t = f · c_{t−1} + i · g
    h_t = o · tanh(LN(c_t; α_c) + b_c)

LN(a; α) = α · (a − mean(a)) / √(var(a) + ε), over the 4H stacked pre-activations and over the H
cells. The shifts of the two normalised products are one bias, b. It runs by the loop with prepared
products (`Cell.loops`), W x_t hoisted.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from lm import checks
from lm.models.base import Cell, LayerState, Sequence, add_parameters
from lm.models.lstm import LSTM, LSTMConfig, activate
from lm.models.weights import Weights, input_product, recurrent_product

_EPSILON = 1e-5


@dataclass(kw_only=True, slots=True)
class LayerNormLSTMConfig(LSTMConfig):
    """An LSTM with layer normalisation; its one bias per gate comes after the normalisation."""

    def __post_init__(self) -> None:
        LSTMConfig.__post_init__(self)
        checks.one_of("model.num_biases", self.num_biases, (1,))

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return LayerNormLSTM(
            input_size, hidden_size, forget_bias=self.forget_bias, chrono_max=self.chrono_max
        )


class LayerNormLSTM(LSTM):
    """One layer-normalised LSTM layer with state {h, c}."""

    gate_biases: ClassVar[tuple[str, ...]] = ("bias",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float | None = None,
        chrono_max: int | None = None,
    ) -> None:
        Cell.__init__(self, input_size, hidden_size)
        self.forget_bias = forget_bias
        self.chrono_max = chrono_max
        add_parameters(self, num_gates=4, num_biases=0)
        self.gain_x = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_h = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_c = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_c = nn.Parameter(torch.empty(hidden_size))

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        of_x = _normalised(input_product(x, weights), weights["gain_x"])
        of_h = _normalised(recurrent_product(state["h"], weights), weights["gain_h"])
        i, f, g, o = activate(of_x + of_h + weights["bias"])
        c = f * state["c"] + i * g
        h = o * (_normalised(c, weights["gain_c"]) + weights["bias_c"]).tanh()
        return {"h": h, "c": c}, {"i": i, "f": f, "g": g, "o": o}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return self.loops(weights)


def _normalised(a: Tensor, gain: Tensor) -> Tensor:
    return layer_norm(a, gain.shape, gain, None, _EPSILON)
