"""sLSTM: exponential gates with a normaliser (Beck et al. 2024, xLSTM, equations 8 to 17).

    i = exp(ĩ), f = sigmoid(f̃) or exp(f̃), o = sigmoid(õ), z = tanh(z̃)
    c_t = f · c_{t−1} + i · z        n_t = f · n_{t−1} + i        h_t = o · c_t / n_t

each pre-activation W x_t + R h_{t−1} + b. Kept in range by m_t = max(log f + m_{t−1}, ĩ), which c
and n are divided by exp of (equations 15 to 17); where nothing has been read yet (n = 0) m_t = ĩ.
One head: R is a full matrix per gate. It runs by the loop with prepared products (`Cell.loops`),
W x_t hoisted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from lm import checks
from lm.models.base import Cell, LayerState, Sequence, add_parameters
from lm.models.recurrent_config import RecurrentConfig
from lm.models.weights import Weights, input_product, recurrent_product


class ForgetGate(Enum):
    """How f follows from its pre-activation."""

    sigmoid = "sigmoid"
    exponential = "exponential"


@dataclass(kw_only=True, slots=True)
class SLSTMConfig(RecurrentConfig):
    """An sLSTM language model.

    Attributes:
        forget_gate: sigmoid or exponential.
        forget_bias: the forget gate's bias at the start; None leaves it to `init.bias`.
    """

    transient: ClassVar[frozenset[str]] = RecurrentConfig.transient | {"forget_bias"}

    forget_gate: ForgetGate = ForgetGate.sigmoid
    forget_bias: float | None = 1.0

    def __post_init__(self) -> None:
        RecurrentConfig.__post_init__(self)
        checks.finite("model.forget_bias", self.forget_bias)

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return SLSTM(
            input_size, hidden_size, forget_gate=self.forget_gate, forget_bias=self.forget_bias
        )


class SLSTM(Cell):
    """One sLSTM layer with state {h, c, n, m}; gates stacked i, f, z, o."""

    state_names: ClassVar[tuple[str, ...]] = ("h", "c", "n", "m")
    mixed_precision: ClassVar[bool] = True
    hoists_input: ClassVar[bool] = True
    masks_state: ClassVar[bool] = True
    gate_rows: ClassVar[tuple[str, ...]] = ("i", "f", "z", "o")
    retention: ClassVar[str | None] = "f"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_gate: ForgetGate = ForgetGate.sigmoid,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.forget_gate = forget_gate
        self.forget_bias = forget_bias
        add_parameters(self, num_gates=4, num_biases=1)

    @property
    def learned_states(self) -> tuple[str, ...]:
        # n and m are bookkeeping: they say how much c and n have been scaled.
        return ("h", "c")

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        a = input_product(x, weights) + recurrent_product(state["h"], weights)
        log_i, log_f, z, o = a.chunk(4, dim=-1)
        z, o = z.tanh(), o.sigmoid()
        if self.forget_gate is ForgetGate.sigmoid:
            log_f = logsigmoid(log_f)
        before = log_f + state["m"]
        m = torch.where(state["n"] == 0, log_i, torch.maximum(before, log_i))
        # Nothing read, nothing to keep: c and n are zero there, and exp might overflow.
        i, f = (log_i - m).exp(), torch.where(state["n"] == 0, 0.0, before - m).exp()
        c = f * state["c"] + i * z
        n = f * state["n"] + i
        return {"h": o * c / n, "c": c, "n": n, "m": m}, {"i": i, "f": f, "z": z, "o": o}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return self.loops(weights)

    def reset_bias(self, draws: Callable[[str], Generator]) -> None:
        if self.forget_bias is not None:
            bias = self.get_parameter("bias_ih").data
            bias[self.hidden_size : 2 * self.hidden_size].fill_(self.forget_bias)
