"""Mogrifier (Melis, Kočiský & Blunsom 2020): input and state gate each other before the cell.

    x^i = 2 sigmoid(Q^i h^{i−1}) · x^{i−2}    for odd i,  x^{−1} = x_t
    h^i = 2 sigmoid(R^i x^{i−1}) · h^{i−2}    for even i, h^0 = h_{t−1}        i = 1 … rounds

The last x and h take the places of x_t and h_{t−1} in the cell's products; the memory (c of the
LSTM, the h that a GRU's update gate keeps) is left alone. With a rank, Q^i and R^i are products of
two thin matrices.

Nothing of it can be hoisted out of the loop over time, so these cells cost `rounds` more products
per step; they run by the loop with prepared products (`Cell.loops`).
"""

from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm import checks
from lm.models.base import Cell, LayerState, Sequence
from lm.models.gru import GRU, GRUConfig
from lm.models.lstm import LSTM, LSTMConfig, activate
from lm.models.recurrent_config import MAX_SIZE
from lm.models.weights import Weights, keep_state, product


@dataclass(kw_only=True, slots=True)
class MogrifierConfig(LSTMConfig):
    """An LSTM with mogrified input and state.

    Attributes:
        rounds: of gating, at most one per step; 0 is the plain LSTM.
        rank: of Q^i and R^i; None is full.
        cap_input_gate: i is at most 1 − f, so that c stays within ±1 (Melis et al. 2018).
    """

    rounds: int = 5
    rank: int | None = None
    cap_input_gate: bool = False

    def __post_init__(self) -> None:
        _check(self.rounds, self.rank)  # first, since the other checks build a cell
        LSTMConfig.__post_init__(self)

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        cell = MogrifierLSTM(
            input_size,
            hidden_size,
            num_biases=self.num_biases,
            forget_bias=self.forget_bias,
            chrono_max=self.chrono_max,
        )
        cell.cap_input_gate = self.cap_input_gate
        add_rounds(cell, self.rounds, self.rank)
        return cell


@dataclass(kw_only=True, slots=True)
class MogrifierGRUConfig(GRUConfig):
    """A GRU with mogrified input and state.

    Attributes:
        rounds, rank: as in `MogrifierConfig`.
    """

    rounds: int = 5
    rank: int | None = None

    def __post_init__(self) -> None:
        _check(self.rounds, self.rank)
        GRUConfig.__post_init__(self)

    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        cell = MogrifierGRU(
            input_size, hidden_size, num_biases=self.num_biases, chrono_max=self.chrono_max
        )
        add_rounds(cell, self.rounds, self.rank)
        return cell


def _check(rounds: int, rank: int | None) -> None:
    checks.at_least("model.rounds", rounds, 0)
    checks.at_most("model.rounds", rounds, 100)
    checks.at_least("model.rank", rank, 1)
    checks.at_most("model.rank", rank, MAX_SIZE)


def add_rounds(cell: Cell, rounds: int, rank: int | None) -> None:
    """Register Q^1, R^2, Q^3 …: `weight_round_i` [I, H] or [H, I], or its factors."""
    for i in range(1, rounds + 1):
        rows, columns = cell.input_size, cell.hidden_size
        if i % 2 == 0:
            rows, columns = columns, rows
        shapes = {"": (rows, columns)}
        if rank is not None:
            shapes = {"_left": (rows, rank), "_right": (rank, columns)}
        for suffix, shape in shapes.items():
            name = f"weight_round_{i}{suffix}"
            cell.register_parameter(name, nn.Parameter(torch.empty(shape)))


def mogrify(x: Tensor, h: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """The gated x and h, as many rounds as the weights have."""
    for i in count(1):
        name = f"weight_round_{i}"
        source = h if i % 2 else x
        if f"{name}_left" in weights:
            gate = product(product(source, weights, f"{name}_right"), weights, f"{name}_left")
        elif name in weights:
            gate = product(source, weights, name)
        else:
            break
        gate = 2 * gate.sigmoid()
        x, h = (gate * x, h) if i % 2 else (x, gate * h)
    return x, h


class MogrifierLSTM(LSTM):
    """One LSTM layer that sees mogrified input and state; state {h, c}."""

    hoists_input: ClassVar[bool] = False
    cap_input_gate = False

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        x, h = mogrify(x, keep_state(state["h"], weights), weights)
        of_x = product(x, weights, "weight_ih", "bias_ih")
        i, f, g, o = activate(of_x + product(h, weights, "weight_hh", "bias_hh"))
        if self.cap_input_gate:
            i = torch.minimum(i, 1 - f)
        c = f * state["c"] + i * g
        return {"h": o * c.tanh(), "c": c}, {"i": i, "f": f, "g": g, "o": o}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return self.loops(weights)


class MogrifierGRU(GRU):
    """One GRU layer whose gates and candidate see mogrified input and state; state {h}."""

    hoists_input: ClassVar[bool] = False

    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        x, h = mogrify(x, keep_state(state["h"], weights), weights)
        of_x = product(x, weights, "weight_ih", "bias_ih")
        of_h = product(h, weights, "weight_hh", "bias_hh")
        r_x, z_x, n_x = of_x.chunk(3, dim=-1)
        r_h, z_h, n_h = of_h.chunk(3, dim=-1)
        r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
        n = (n_x + r * n_h).tanh()
        return {"h": (1 - z) * n + z * state["h"]}, {"r": r, "z": z, "n": n}

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        return self.loops(weights)
