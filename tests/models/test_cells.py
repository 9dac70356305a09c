"""The cells equal their equations, torch.nn's modules, and themselves cut in two."""

import math

import pytest
import torch
from cell_problem import (
    assert_equal,
    check_kernels,
    check_lower_precision,
    check_windows_join,
    gradients,
)
from torch import Tensor, nn

from lm.models.base import Cell, LayerState, Sequence
from lm.models.gru import GRU
from lm.models.lstm import LSTM
from lm.models.rnn import RNN, Nonlinearity

T, B, I, H = 7, 3, 5, 4  # noqa: E741  (the shape legend's letters)

CELLS = {
    "tanh": lambda biases: RNN(I, H, num_biases=biases),
    "relu": lambda biases: RNN(I, H, nonlinearity=Nonlinearity.relu, num_biases=biases),
    "sigmoid": lambda biases: RNN(I, H, nonlinearity=Nonlinearity.sigmoid, num_biases=biases),
    "lstm": lambda biases: LSTM(I, H, num_biases=biases),
    "gru": lambda biases: GRU(I, H, num_biases=biases),
}
TORCH = {
    "tanh": lambda: nn.RNN(I, H),
    "relu": lambda: nn.RNN(I, H, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(I, H),
    "gru": lambda: nn.GRU(I, H),
}


def make(name: str, biases: int = 2) -> tuple[Cell, Tensor, LayerState]:
    """A float64 cell with random weights, an input and a state, all requiring gradients."""
    draws = torch.Generator().manual_seed(len(name))  # hash() differs from process to process
    cell = CELLS[name](biases).double()
    for parameter in cell.parameters():
        parameter.data.normal_(0, 0.5, generator=draws)
    x = torch.randn(T, B, I, dtype=torch.float64, generator=draws, requires_grad=True)
    state = {
        key: torch.randn(B, H, dtype=torch.float64, generator=draws, requires_grad=True)
        for key in cell.state_names
    }
    return cell, x, state


@pytest.mark.parametrize("biases", [0, 1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_kernels_equal_the_equations_in_value_and_gradient(name: str, biases: int) -> None:
    cell, x, state = make(name, biases)
    own = {"native", "plain"} | ({"torch"} if name in TORCH else set())
    assert check_kernels(cell, x, state) == own


@pytest.mark.parametrize("kernel", ["native", "plain"])
@pytest.mark.parametrize("name", CELLS)
def test_gradcheck_of_our_kernels(name: str, kernel: str) -> None:
    cell, x, state = make(name)
    names = list(cell.weights())

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        weights = dict(zip(names, rest, strict=False))
        before = dict(zip(state, rest[len(names) :], strict=True))
        y, after = cell.kernels(weights)[kernel](x, before, weights)
        return y, *after.values()

    assert torch.autograd.gradcheck(run, (x, *cell.parameters(), *state.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CELLS)
def test_kernels_in_lower_precision(name: str, dtype: torch.dtype) -> None:
    cell, x, state = make(name)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2

    def ways(weights: dict[str, Tensor]) -> list[Sequence]:
        kernels = cell.kernels(weights)
        assert "plain" in kernels
        return [cell.reference, *kernels.values()]

    check_lower_precision(cell, x, state, dtype, tolerance, ways)


@pytest.mark.parametrize("name", TORCH)
def test_cell_equals_torch(name: str) -> None:
    cell, x, state = make(name)
    theirs = TORCH[name]().double()
    for key, parameter in cell.named_parameters():
        getattr(theirs, f"{key}_l0").data.copy_(parameter.data)
    ours, after = cell.sequence(x, state, cell.weights())
    packed = tuple(t[None] for t in state.values())
    y, last = theirs(x, packed if len(packed) == 2 else packed[0])
    last = last if isinstance(last, tuple) else (last,)
    assert_equal([ours, *after.values()], [y, *(t[0] for t in last)])
    ramp = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    scalar = (y * ramp).sum() + sum((t**2).sum() for t in last)
    named = dict(theirs.named_parameters())
    wanted = [named[f"{key}_l0"] for key, _ in cell.named_parameters()]
    theirs_gradients = torch.autograd.grad(scalar, [*wanted, x, *state.values()])
    assert_equal(gradients(cell, x, state, ours, after), list(theirs_gradients))


@pytest.mark.parametrize("name", CELLS)
def test_two_windows_with_carried_state_equal_one_long_window(name: str) -> None:
    cell, x, state = make(name)
    check_windows_join(cell, x, state, [3])


def test_lstm_step_by_hand() -> None:
    cell = LSTM(1, 1, num_biases=1).double()
    column = lambda *values: torch.tensor(values, dtype=torch.float64)[:, None]  # noqa: E731
    cell.weight_ih.data = column(1.0, 2.0, 3.0, 4.0)
    cell.weight_hh.data = column(0.5, -0.5, 0.25, -0.25)
    cell.bias_ih.data = column(0.1, 0.2, 0.3, 0.4)[:, 0]
    x, h, c = 0.3, 0.7, -0.2
    i = sigmoid(1.0 * x + 0.5 * h + 0.1)
    f = sigmoid(2.0 * x - 0.5 * h + 0.2)
    g = math.tanh(3.0 * x + 0.25 * h + 0.3)
    o = sigmoid(4.0 * x - 0.25 * h + 0.4)
    state, gates = cell.step(column(x), {"h": column(h), "c": column(c)}, cell.weights())
    assert state["c"].item() == pytest.approx(f * c + i * g, abs=1e-12)
    assert state["h"].item() == pytest.approx(o * math.tanh(f * c + i * g), abs=1e-12)
    assert {name: gate.item() for name, gate in gates.items()} == pytest.approx(
        {"i": i, "f": f, "g": g, "o": o}, abs=1e-12
    )


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_weights_are_an_argument_of_the_sequence() -> None:
    """Weight drop needs it: the gradient reaches the raw weight through what replaced it."""
    cell, x, state = make("lstm")
    keep = (torch.rand(4 * H, H, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    weights = {**cell.weights(), "weight_hh": cell.weight_hh * keep}
    y, _ = cell.sequence(x, state, weights)
    (gradient,) = torch.autograd.grad(y.sum(), [cell.weight_hh])
    assert (gradient[keep == 0] == 0).all()
    assert (gradient[keep == 1] != 0).all()
