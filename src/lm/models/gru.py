"""Gated recurrent unit (Cho et al. 2014), in the form that PyTorch and cuDNN compute.

    r, z = sigmoid(W x_t + U h_{t−1} + b)                    reset and update gate
    n    = tanh(W_n x_t + b_n + r · (U_n h_{t−1} + b'_n))    candidate; b' only with two biases
    h_t  = (1 − z) · n + z · h_{t−1}

Gates are stacked in PyTorch's order r, z, n.
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
from lm.models.kernels.gru import GRUSequence
from lm.models.kernels.native_cells import NativeGRU
from lm.models.kernels.products import Prepare
from lm.models.kernels.ways import ways_over_a_window
from lm.models.recurrent_config import RecurrentConfig
from lm.models.weights import Weights, input_product, kernel_weights, recurrent_product


@dataclass(kw_only=True, slots=True)
class GRUConfig(RecurrentConfig):
    """A GRU language model.

    Attributes:
        num_biases: bias vectors per layer: 2 as in PyTorch, 1 or 0.
        chrono_max: longest lag for chrono initialisation of the update gate's bias; None is off.
    """

    transient: ClassVar[frozenset[str]] = RecurrentConfig.transient | {"chrono_max"}

    num_biases: int = 1
    chrono_max: int | None = None

    def __post_init__(self) -> None:
        RecurrentConfig.__post_init__(self)
        checks.one_of("model.num_biases", self.num_biases, (0, 1, 2))
        checks.at_least("model.chrono_max", self.chrono_max, 3)
        if self.num_biases == 0 and self.chrono_max is not None:
            raise ConfigError(
                "model.chrono_max needs a bias, got model.num_biases=0",
                "Set model.num_biases=1, or model.chrono_max=null.",
            )

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return GRU(input_size, hidden_size, num_biases=self.num_biases, chrono_max=self.chrono_max)


class GRU(Cell):
    """One GRU layer with state {h}."""

    mixed_precision: ClassVar[bool] = True
    hoists_input: ClassVar[bool] = True
    masks_state: ClassVar[bool] = True
    gate_rows: ClassVar[tuple[str, ...]] = ("r", "z", "n")
    retention: ClassVar[str | None] = "z"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_biases: int = 2,
        chrono_max: int | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.chrono_max = chrono_max
        add_parameters(self, num_gates=3, num_biases=num_biases)

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        r_x, z_x, n_x = input_product(x, weights).chunk(3, dim=-1)
        r_h, z_h, n_h = recurrent_product(state["h"], weights).chunk(3, dim=-1)
        r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
        n = (n_x + r * n_h).tanh()
        h = (1 - z) * n + z * state["h"]
        return {"h": h}, {"r": r, "z": z, "n": n}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return ways_over_a_window(
            weights["weight_hh"], fused=_fused, torch_own=_torch, native=_native, triton=_triton
        )

    def reset_bias(self, draws: Callable[[str], Generator]) -> None:
        if self.chrono_max is None:
            return
        size = self.hidden_size
        biases = [p for name, p in self.named_parameters(recurse=False) if name.startswith("bias")]
        for k, bias in enumerate(biases):
            z = bias.data[size : 2 * size]
            z.zero_() if k else z.copy_(chrono_bias(size, self.chrono_max, draws("chrono")))


def _torch(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    """torch's own kernel."""
    kernel = kernel_weights(weights)
    dtype = kernel[0].dtype
    y, h = torch.gru(
        x.to(dtype), state["h"][None].to(dtype), kernel, len(kernel) == 4, 1, 0.0,
        torch.is_grad_enabled(), False, False,
    )  # fmt: skip
    return y, {"h": h[0].to(state["h"].dtype)}


def _fused(
    prepare: Prepare, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h = GRUSequence.apply(  # type: ignore[no-untyped-call]
        x.to(matrices[0].dtype), state["h"], *matrices, *_biases(weights), prepare
    )
    return y, {"h": h}


def _native(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    y, h = NativeGRU.apply(  # type: ignore[no-untyped-call]
        x.to(matrices[0].dtype), state["h"], *matrices, *_biases(weights)
    )
    return y, {"h": h}


def _biases(weights: Weights) -> tuple[Tensor | None, Tensor | None]:
    """What is added to all pre-activations [3H], and b'_n [H], which the reset gate multiplies."""
    bias = weights.get("bias_ih")
    if bias is None or "bias_hh" not in weights:
        return bias, None
    r, z, inner = weights["bias_hh"].chunk(3)
    return bias + torch.cat([r, z, torch.zeros_like(inner)]), inner


def _triton(
    x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    matrices = weights["weight_ih"], weights["weight_hh"]
    biases = weights.get("bias_ih"), weights.get("bias_hh")
    y, h = triton_cells.gru(x, state["h"], *matrices, *biases)
    return y, {"h": h}
