"""The Elman network (Elman 1990): h_t = σ(W_hx x_t + W_hh h_{t−1} + b), σ = tanh, relu, sigmoid."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from lm import checks
from lm.models.base import (
    Cell,
    LayerState,
    Weights,
    add_parameters,
    input_product,
    kernel_weights,
    recurrent_product,
)
from lm.models.language_model import ModelConfig


class Nonlinearity(Enum):
    """The chapter's σ."""

    tanh = "tanh"
    relu = "relu"
    sigmoid = "sigmoid"


_APPLY: dict[Nonlinearity, Callable[[Tensor], Tensor]] = {
    Nonlinearity.tanh: torch.tanh,
    Nonlinearity.relu: torch.relu,
    Nonlinearity.sigmoid: torch.sigmoid,
}


@dataclass(kw_only=True, slots=True)
class RNNConfig(ModelConfig):
    """An Elman RNN language model.

    Attributes:
        nonlinearity: σ; relu with `init.recurrent.kind=identity` is the IRNN.
        num_biases: bias vectors per layer: 2 as in PyTorch, 1 or 0.
    """

    nonlinearity: Nonlinearity = Nonlinearity.tanh
    num_biases: int = 1

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        checks.one_of("model.num_biases", self.num_biases, (0, 1, 2))

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return RNN(
            input_size, hidden_size, nonlinearity=self.nonlinearity, num_biases=self.num_biases
        )


class RNN(Cell):
    """One Elman layer with state {h}."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: Nonlinearity = Nonlinearity.tanh,
        num_biases: int = 2,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.nonlinearity = nonlinearity
        add_parameters(self, num_gates=1, num_biases=num_biases)

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        a = input_product(x, weights) + recurrent_product(state["h"], weights)
        h = _APPLY[self.nonlinearity](a)
        return {"h": h}, {"a": a}

    def sequence(
        self, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        if self.nonlinearity is Nonlinearity.sigmoid:  # torch has no kernel for it
            return self._hoisted(x, state["h"], weights)
        kernel = kernel_weights(weights)
        run = torch.rnn_tanh if self.nonlinearity is Nonlinearity.tanh else torch.rnn_relu
        y, h = run(
            x, state["h"][None], kernel, len(kernel) == 4, 1, 0.0, torch.is_grad_enabled(), False,
            False,
        )  # fmt: skip
        return y, {"h": h[0]}

    def _hoisted(
        self, x: Float[Tensor, "T B I"], h: Float[Tensor, "B H"], weights: Weights
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        """One input product for the whole window; only the recurrent product stays in the loop."""
        outputs = []
        for a_t in input_product(x, weights):
            h = _APPLY[self.nonlinearity](a_t + recurrent_product(h, weights))
            outputs.append(h)
        return torch.stack(outputs), {"h": h}
