"""A step at a time gives the numbers of the whole window."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lm.models import CELLS, RecurrentModel
from lm.models import stepper as module
from lm.models.base import Cell, LayerState
from lm.models.kernels import few_rows
from lm.models.lstm import LSTM
from lm.models.recurrent_config import InitialState, RecurrentConfig
from lm.models.rnn import Nonlinearity
from lm.models.stepper import Stepper
from lm.models.weights import Weights
from lm.runtime.compute import Kernels

VOCABULARY = 11
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class Leaky(Cell):
    """A cell of a user: two tensors of state, only `step`."""

    state_names = ("h", "m")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_ih = torch.nn.Parameter(torch.empty(hidden_size, input_size))
        self.inner = torch.nn.Linear(hidden_size, hidden_size)

    def step(self, x: Tensor, state: LayerState, weights: Weights) -> tuple[LayerState, LayerState]:
        m = 0.9 * state["m"] + x @ weights["weight_ih"].T
        return {"h": torch.tanh(m + self.inner(state["h"])), "m": m}, {}


class Mirrored(LSTM):
    """Derives from a built-in cell and computes something else."""

    def step(self, x: Tensor, state: LayerState, weights: Weights) -> tuple[LayerState, LayerState]:
        return super().step(-x, state, weights)

    def kernels(self, weights: Weights) -> dict[str, Any]:
        return {}


class LeakyConfig(RecurrentConfig):
    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return Leaky(input_size, hidden_size)


class MirroredConfig(RecurrentConfig):
    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        return Mirrored(input_size, hidden_size)


def model_of(cell: str, **fields: Any) -> RecurrentModel:
    """Different layer sizes, large weights, random biases and initial state."""
    configs = {**CELLS, "leaky": LeakyConfig, "mirrored": MirroredConfig}
    values = {"embedding_size": 7, "layer_sizes": [9, 5, 8], **fields}
    model = configs[cell](**values).build(VOCABULARY, seed=2)
    draws = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        noise = torch.empty_like(parameter).normal_(generator=draws)
        parameter.data.add_(noise, alpha=0.4)
    return model


def compare(model: RecurrentModel, num_streams: int, steps: int) -> None:
    """Logits and state against the window's path, from a state in the middle of a text."""
    draws = torch.Generator().manual_seed(4)
    tokens = torch.randint(model.vocab_size, (3 + steps, num_streams), generator=draws)
    with torch.no_grad():
        _, before = model.features(tokens[:3])
        kept = [{name: t.clone() for name, t in layer.items()} for layer in before]
        features, after = model.features(tokens[3:], before)
        expected = model.head.log_prob(features)
    stepper = Stepper(model, before)
    for step in range(steps):
        stepper.read(tokens[3 + step])
        actual = stepper.logits().log_softmax(-1)
        torch.testing.assert_close(actual, expected[step], **TOLERANCE)
    for layer, expected_layer in zip(stepper.state, after, strict=True):
        assert layer.keys() == expected_layer.keys()
        for name in layer:
            torch.testing.assert_close(layer[name], expected_layer[name], **TOLERANCE)
    for layer, kept_layer in zip(before, kept, strict=True):
        for name in layer:
            assert torch.equal(layer[name], kept_layer[name]), "the given state was overwritten"


# The vocabulary's input products are tabulated after 11 tokens, in the midst of these.
@pytest.mark.parametrize(("num_streams", "steps"), [(1, 20), (4, 6)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "leaky", "mirrored"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tied": True},
        {"output_bias": False},
        {"layer_sizes": [6]},
        {"initial_state": InitialState.learned},
    ],
)
def test_steps_equal_the_window(
    cell: str, fields: dict[str, Any], num_streams: int, steps: int
) -> None:
    compare(model_of(cell, **fields), num_streams, steps)


@pytest.mark.parametrize("num_biases", [0, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_any_number_of_biases(cell: str, num_biases: int) -> None:
    more = {"forget_bias": None} if cell == "lstm" else {}
    compare(model_of(cell, num_biases=num_biases, **more), 2, 8)


@pytest.mark.parametrize("nonlinearity", [Nonlinearity.relu, Nonlinearity.sigmoid])
def test_every_nonlinearity(nonlinearity: Nonlinearity) -> None:
    compare(model_of("rnn", nonlinearity=nonlinearity), 2, 8)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_packed_matrices(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "_SMALLEST_PACKED", 1)
    compare(model_of(cell), 3, 8)


def test_matrices_too_large_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "_LARGEST_COPY", 0)
    monkeypatch.setattr(module, "_LARGEST_TABLE", 0)
    compare(model_of("lstm"), 3, 8)


def test_float64_stays_float64() -> None:
    model = model_of("gru").double()
    _, state = model.features(torch.zeros(1, 2, dtype=torch.long))
    stepper = Stepper(model, state)
    stepper.read(torch.tensor([3, 4]))
    assert stepper.logits().dtype == torch.float64


def test_the_table_is_made_once_it_pays() -> None:
    model = model_of("lstm")
    _, state = model.features(torch.zeros(1, 2, dtype=torch.long))
    stepper = Stepper(model, state)
    made = []
    for _ in range(7):
        stepper.read(torch.tensor([1, 2]))
        made.append(stepper.embedding.shape == (VOCABULARY, 4 * 9))
    assert made == [False] * 5 + [True] * 2  # 12 tokens of 11


def test_the_reference_kernel_is_the_cells_own_step() -> None:
    model = model_of("lstm")
    for cell in model.cells:
        cell.compute.kernels = Kernels.reference
    compare(model, 2, 4)
    _, state = model.features(torch.zeros(1, 2, dtype=torch.long))
    assert {type(layer).__name__ for layer in Stepper(model, state).layers} == {"_AnyCell"}


def test_no_graph_is_kept() -> None:
    model = model_of("leaky", initial_state=InitialState.learned)
    _, state = model.features(torch.zeros(1, 2, dtype=torch.long))
    stepper = Stepper(model, state)
    stepper.read(torch.tensor([1, 2]))
    assert not stepper.logits().requires_grad
    assert not any(t.requires_grad for layer in stepper.state for t in layer.values())
