"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    i, f, o = sigmoid(W x_t + U h_{t−1} + b)      input, forget and output gate
    g       = tanh(W_g x_t + U_g h_{t−1} + b_g)   candidate, the chapter's c̃
    c_t     = f · c_{t−1} + i · g
    h_t     = o · tanh(c_t)

Gates are stacked in PyTorch's order i, f, g, o.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from lm import checks
from lm.errors import ConfigError
from lm.models.base import Cell, LayerState, Sequence, add_parameters
from lm.models.init import chrono_bias
from lm.models.kernels import triton_cells
from lm.models.kernels.lstm import LSTMSequence
from lm.models.kernels.native_cells import NativeLSTM
from lm.models.kernels.products import Prepare
from lm.models.kernels.ways import ways_over_a_window
from lm.models.recurrent_config import RecurrentConfig
from lm.models.weights import Weights, input_product, kernel_weights, recurrent_product, total_bias


@dataclass(kw_only=True, slots=True)
class LSTMConfig(RecurrentConfig):
    """An LSTM language model.

    Attributes:
        num_biases: bias vectors per layer: 2 as in PyTorch, 1 or 0.
        forget_bias: the forget gate's total bias at the start (Jozefowicz et al. 2015 advise 1);
            None leaves it to `init.bias`.
        chrono_max: longest lag for chrono initialisation, which sets the forget and input gate's
            biases; None is off.
    """

    transient: ClassVar[frozenset[str]] = RecurrentConfig.transient | {"forget_bias", "chrono_max"}

    num_biases: int = 1
    forget_bias: float | None = 1.0
    chrono_max: int | None = None

    def __post_init__(self) -> None:
        RecurrentConfig.__post_init__(self)
        checks.one_of("model.num_biases", self.num_biases, (0, 1, 2))
        checks.finite("model.forget_bias", self.forget_bias)
        checks.at_least("model.chrono_max", self.chrono_max, 3)
        if self.num_biases == 0 and (self.forget_bias is not None or self.chrono_max is not None):
            raise ConfigError(
                "model.forget_bias and model.chrono_max need a bias, got model.num_biases=0",
                "Set model.num_biases=1, or model.forget_bias=null model.chrono_max=null.",
            )

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return LSTM(
            input_size,
            hidden_size,
            num_biases=self.num_biases,
            forget_bias=self.forget_bias,
            chrono_max=self.chrono_max,
        )


class LSTM(Cell):
    """One LSTM layer with state {h, c}."""

    state_names: ClassVar[tuple[str, ...]] = ("h", "c")
    mixed_precision: ClassVar[bool] = True
    hoists_input: ClassVar[bool] = True
    masks_state: ClassVar[bool] = True
    gate_rows: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    retention: ClassVar[str | None] = "f"
    gate_biases: ClassVar[tuple[str, ...]] = ("bias_ih", "bias_hh")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_biases: int = 2,
        forget_bias: float | None = None,
        chrono_max: int | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.forget_bias = forget_bias
        self.chrono_max = chrono_max
        add_parameters(self, num_gates=4, num_biases=num_biases)

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        gates = input_product(x, weights) + recurrent_product(state["h"], weights)
        i, f, g, o = activate(gates)
        c = f * state["c"] + i * g
        h = o * c.tanh()
        return {"h": h, "c": c}, {"i": i, "f": f, "g": g, "o": o}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return ways_over_a_window(
            weights["weight_hh"], fused=_fused, torch_own=_torch, native=_native, triton=_triton
        )

    def reset_bias(self, draws: Callable[[str], Generator]) -> None:
        size = self.hidden_size
        biases = [self.get_parameter(name) for name in self.gate_biases if hasattr(self, name)]
        for k, bias in enumerate(biases):
            i, f = bias.data[:size], bias.data[size : 2 * size]
            # The gates see the sum of the biases: the value goes into the first, zero elsewhere.
            if self.forget_bias is not None:
                f.fill_(self.forget_bias if k == 0 else 0.0)
            if self.chrono_max is not None:
                f.zero_() if k else f.copy_(chrono_bias(size, self.chrono_max, draws("chrono")))
                i.zero_() if k else i.copy_(-f)


def activate(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """i, f, g, o from their stacked pre-activations [B, 4H]."""
    i, f, g, o = gates.chunk(4, dim=-1)
    return i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()


def _torch(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    """torch's own kernel: oneDNN's or cuDNN's."""
    kernel = kernel_weights(weights)
    dtype = kernel[0].dtype
    y, h, c = torch.lstm(
        x.to(dtype),
        (state["h"][None].to(dtype), state["c"][None].to(dtype)),
        kernel,
        len(kernel) == 4,
        1,  # layers
        0.0,  # dropout: ours lies between the layers
        torch.is_grad_enabled(),
        False,  # bidirectional
        False,  # batch first
    )
    return y, {"h": h[0].to(state["h"].dtype), "c": c[0].to(state["c"].dtype)}


def _fused(
    prepare: Prepare, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h, c = LSTMSequence.apply(  # type: ignore[no-untyped-call]
        x.to(matrices[0].dtype), state["h"], state["c"], *matrices, total_bias(weights), prepare
    )
    return y, {"h": h, "c": c}


def _native(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h, c = NativeLSTM.apply(  # type: ignore[no-untyped-call]
        x.to(matrices[0].dtype), state["h"], state["c"], *matrices, total_bias(weights)
    )
    return y, {"h": h, "c": c}


def _triton(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h, c = triton_cells.lstm(x, state["h"], state["c"], *matrices, total_bias(weights))
    return y, {"h": h, "c": c}
