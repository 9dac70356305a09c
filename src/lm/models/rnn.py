"""The Elman network (Elman 1990): h_t = σ(W_hx x_t + W_hh h_{t−1} + b), σ = tanh, relu, sigmoid."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lm import checks
from lm.models.base import Cell, LayerState, Sequence, add_parameters
from lm.models.kernels import triton_cells
from lm.models.kernels.native_cells import NativeRNN
from lm.models.kernels.products import Prepare
from lm.models.kernels.rnn import RNNSequence
from lm.models.kernels.ways import ways_over_a_window
from lm.models.recurrent_config import RecurrentConfig
from lm.models.weights import Weights, input_product, kernel_weights, recurrent_product, total_bias


class Nonlinearity(Enum):
    """The chapter's σ."""

    tanh = "tanh"
    relu = "relu"
    sigmoid = "sigmoid"


APPLY: dict[Nonlinearity, Callable[[Tensor], Tensor]] = {
    Nonlinearity.tanh: torch.tanh,
    Nonlinearity.relu: torch.relu,
    Nonlinearity.sigmoid: torch.sigmoid,
}


@dataclass(kw_only=True, slots=True)
class RNNConfig(RecurrentConfig):
    """An Elman RNN language model.

    Attributes:
        nonlinearity: σ; relu with `init.recurrent.kind=identity` is the IRNN.
        num_biases: bias vectors per layer: 2 as in PyTorch, 1 or 0.
    """

    nonlinearity: Nonlinearity = Nonlinearity.tanh
    num_biases: int = 1

    def __post_init__(self) -> None:
        RecurrentConfig.__post_init__(self)
        checks.one_of("model.num_biases", self.num_biases, (0, 1, 2))

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return RNN(
            input_size, hidden_size, nonlinearity=self.nonlinearity, num_biases=self.num_biases
        )


class RNN(Cell):
    """One Elman layer with state {h}."""

    mixed_precision: ClassVar[bool] = True
    hoists_input: ClassVar[bool] = True
    masks_state: ClassVar[bool] = True

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
        h = APPLY[self.nonlinearity](a)
        return {"h": h}, {"a": a}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        name = self.nonlinearity.value
        in_torch = self.nonlinearity is not Nonlinearity.sigmoid
        return ways_over_a_window(
            weights["weight_hh"],
            fused=partial(_fused, name),
            torch_own=partial(_torch, name) if in_torch else None,
            native=partial(_native, name),
            triton=partial(_triton, name),
        )


def _torch(
    nonlinearity: str, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    """torch's own kernel."""
    kernel = kernel_weights(weights)
    dtype = kernel[0].dtype
    y, h = getattr(torch, f"rnn_{nonlinearity}")(
        x.to(dtype), state["h"][None].to(dtype), kernel, len(kernel) == 4, 1, 0.0,
        torch.is_grad_enabled(), False, False,
    )  # fmt: skip
    return y, {"h": h[0].to(state["h"].dtype)}


def _fused(
    nonlinearity: str,
    prepare: Prepare,
    x: Float[Tensor, "T B I"],
    state: LayerState,
    weights: Weights,
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h = RNNSequence.apply(  # type: ignore[no-untyped-call]
        x.to(matrices[0].dtype), state["h"], *matrices, total_bias(weights), nonlinearity, prepare
    )
    return y, {"h": h}


def _native(
    nonlinearity: str, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h = NativeRNN.apply(  # type: ignore[no-untyped-call]
        x.to(matrices[0].dtype), state["h"], *matrices, total_bias(weights), nonlinearity
    )
    return y, {"h": h}


def _triton(
    nonlinearity: str, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h = triton_cells.rnn(x, state["h"], *matrices, total_bias(weights), nonlinearity)
    return y, {"h": h}
