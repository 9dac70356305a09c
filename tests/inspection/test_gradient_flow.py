"""Gradients over lag: against autograd by another road, and against what theory says."""

import math
from pathlib import Path

import pytest
import torch
from inspected import VOCABULARY, model_of, store_of

from lm.data.corpus import Unit
from lm.data.streams import Window
from lm.errors import DataError
from lm.inspection.gradient_flow import flow_of_reading, half_life, measure_flow
from lm.inspection.watch import Reading
from lm.models import CELLS, RecurrentModel
from lm.models.base import State, detach

LAGS = 6


def window(streams: int = 3, steps: int = LAGS + 1) -> Window:
    block = torch.randint(VOCABULARY, (steps + 1, streams), generator=torch.Generator())
    return Window(block[:-1], block[1:])


def carried_gradients(model: RecurrentModel, read: Window, start: State, lag: int) -> State:
    """∂L_t/∂state by the model's own forward pass from the state `lag` steps before its end."""
    steps = len(read.tokens) - lag
    _, state = model.features(read.tokens[:steps], start)
    leaves = [{n: t.detach().requires_grad_() for n, t in layer.items()} for layer in state]
    loss = model(read.tokens[steps:], read.targets[steps:], leaves).nll[-1].sum()
    with torch.enable_grad():
        log_prob, _ = model.log_prob(read.tokens[steps:], leaves)
        loss = -log_prob[-1].gather(1, read.targets[-1][:, None]).sum()
    flat = [tensor for layer in leaves for tensor in layer.values()]
    found = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    return [
        {n: torch.zeros_like(t) if (g := next(found)) is None else g for n, t in layer.items()}
        for layer in leaves
    ]


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_it_is_the_derivative_with_respect_to_the_carried_state(cell: str) -> None:
    model, read = model_of(cell), window()
    start = detach(model.initial_state(3))
    flow, _ = flow_of_reading(model, Reading(read, start))
    names = model.cells[0].learned_states
    for lag in range(1, LAGS + 1):
        (layer,) = carried_gradients(model, read, start, lag)
        for name in names:
            norms = layer[name].norm(dim=1)
            assert flow.layers[0][name].mean[lag] == pytest.approx(norms.mean().item(), rel=1e-8)
        whole = torch.cat([layer[name] for name in names], 1).norm(dim=1)
        assert flow.whole.mean[lag] == pytest.approx(whole.mean().item(), rel=1e-8)


def test_at_lag_zero_the_loss_is_seen_through_h_alone() -> None:
    model, read = model_of("lstm"), window()
    flow, _ = flow_of_reading(model, Reading(read, detach(model.initial_state(3))))
    assert flow.layers[0]["c"].mean[0] == 0 < flow.layers[0]["c"].mean[1]
    assert flow.layers[0]["state"].mean[0] == flow.layers[0]["h"].mean[0] > 0


def test_a_lower_layer_is_reached_through_the_upper_one_too() -> None:
    model, read = model_of("rnn", num_layers=2), window()
    flow, _ = flow_of_reading(model, Reading(read, detach(model.initial_state(3))))
    assert flow.layers[0]["h"].mean[0] > 0
    squares = [layer["state"].mean[0] for layer in flow.layers]
    assert flow.whole.mean[0] > max(squares)


def decaying(factor: float) -> RecurrentModel:
    """A relu network whose units are all on, and multiply what they hold by `factor`."""
    model = model_of("rnn", nonlinearity=CELLS["rnn"]().nonlinearity.relu)
    cell = model.cells[0]
    cell.get_parameter("weight_hh").data.copy_(factor * torch.eye(5, dtype=torch.float64))
    cell.get_parameter("bias_ih").data.fill_(10.0)
    return model


def test_a_known_decay_is_found(tmp_path: Path) -> None:
    flow = measure_flow(decaying(0.9), store_of(tmp_path, 400), Unit.stream, lags=20, positions=40)
    assert flow.num_positions == 40
    for k, norm in enumerate(flow.whole.mean):
        assert norm == pytest.approx(flow.whole.mean[0] * 0.9**k, rel=1e-9)
    assert flow.whole.half_life == pytest.approx(math.log(2) / -math.log(0.9))
    assert flow.whole.reach == 20


def test_what_does_not_fall_has_no_half_life(tmp_path: Path) -> None:
    store = store_of(tmp_path, 300)
    still = measure_flow(decaying(1.0), store, Unit.stream, lags=20, positions=10)
    assert math.isinf(still.whole.half_life)
    assert still.to_json()["whole"]["half_life"] is None  # type: ignore[index]
    exploding = measure_flow(decaying(1.2), store, Unit.stream, lags=20, positions=10)
    assert math.isinf(exploding.whole.half_life)
    assert exploding.whole.mean[20] == pytest.approx(exploding.whole.mean[0] * 1.2**20, rel=1e-9)


def test_nothing_flows_past_a_reset() -> None:
    model, read = model_of("gru"), window()
    resets = torch.zeros(LAGS + 1, 3, dtype=torch.bool)
    resets[4] = True  # before the token at index 4 is read: lag 2 is the first after it
    read = Window(read.tokens, read.targets, resets)
    flow, _ = flow_of_reading(model, Reading(read, detach(model.initial_state(3))))
    assert flow.whole.mean[2] > 0
    assert flow.whole.mean[3:] == [0.0] * (LAGS - 2)
    assert flow.whole.reach <= 2


def test_half_lives_of_exact_decays() -> None:
    assert half_life([5.0, *(0.5 ** (k / 7) for k in range(1, 40))]) == pytest.approx(7)
    assert half_life([1.0, 1e-9, 1e-9]) == math.inf
    assert half_life([1.0, 0.0, 0.0]) == 0.0


def test_the_lags_that_carry_the_gradient_decide() -> None:
    """A tail of a millionth does not make a short memory long."""
    fast = [0.5**k for k in range(60)]
    assert half_life([norm + 1e-6 for norm in fast]) == pytest.approx(1, rel=0.03)


def test_a_text_that_is_too_short_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="30 tokens are too few to look 41 steps back") as raised:
        measure_flow(model_of(), store_of(tmp_path, 30), Unit.stream, lags=40, positions=4)
    assert "lags=10" in raised.value.remedy
