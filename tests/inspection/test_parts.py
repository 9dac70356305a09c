"""Gates, matrices, context, updates, clipping: each against a model whose answer is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from inspected import model_of, store_of

from lm.data.corpus import Unit
from lm.errors import CheckpointError
from lm.evaluation.text import Text
from lm.inspection.activations import Distribution, half_lives, measure_activations
from lm.inspection.clip_advice import advise
from lm.inspection.context import measure_context
from lm.inspection.matrices import measure_matrices
from lm.inspection.updates import UpdateRatios
from lm.metrics.history import gradient_norms


def test_half_lives_are_those_of_the_product_of_the_gates() -> None:
    kept = torch.tensor([[[0.5, 0.25, 1.0]], [[0.5, 1.0, 1.0]]])
    assert half_lives(kept) == pytest.approx([1.0, 1.0, 1e6])
    assert half_lives(torch.full((4, 2, 1), 0.9)) == pytest.approx([math.log(2) / -math.log(0.9)])


def test_distributions_know_their_bounds() -> None:
    gate = Distribution.of(torch.tensor([0.05, 0.5, 0.95, 0.99]))
    assert (gate.bounds, gate.low, gate.high) == ((0.0, 1.0), 0.25, 0.5)
    candidate = Distribution.of(torch.tensor([-0.95, 0.0, 0.05, 0.99]))
    assert (candidate.bounds, candidate.saturated) == ((-1.0, 1.0), 0.5)
    free = Distribution.of(torch.tensor([-3.0, 0.0, 2.0]))
    assert (free.bounds, free.low, free.edges) == (None, None, (-3.0, 2.0))
    assert sum(free.counts) == 3


def test_gates_of_a_model_whose_biases_decide(tmp_path: Path) -> None:
    model = model_of("lstm")
    cell = model.cells[0]
    for name in ("weight_ih", "weight_hh"):
        cell.get_parameter(name).data.zero_()
    bias = cell.get_parameter("bias_ih").data.view(4, 5)
    bias[0], bias[1], bias[2], bias[3] = -9.0, 2.0, 9.0, 0.0  # i shut, f 0.88, g full, o half
    (layer,) = measure_activations(model, store_of(tmp_path, 100), Unit.stream, steps=10, places=4)
    assert layer.gates["i"].low == 1.0
    assert layer.gates["g"].high == 1.0
    assert (layer.gates["o"].low, layer.gates["o"].high) == (0.0, 0.0)
    kept = 1 / (1 + math.exp(-2))
    assert layer.half_lives == pytest.approx([math.log(2) / -math.log(kept)] * 5)
    assert layer.dead_units == 5  # nothing of the text comes in


def test_spectra_of_known_matrices() -> None:
    model = model_of("lstm")
    rows = model.cells[0].get_parameter("weight_hh").data.view(4, 5, 5)
    rows[:] = torch.eye(5)
    rows[1] = torch.diag(torch.tensor([3.0, -4.0, 0.5, 0.0, 1.0]))
    rows[2] = 2 * torch.eye(5).roll(1, 0)  # turns: eigenvalues are 2 times the fifth roots of one
    (layer,) = measure_matrices(model)
    assert [found.name for found in layer] == [f"weight_hh.{gate}" for gate in "ifgo"]
    forget, candidate = layer[1], layer[2]
    assert forget.singular_values == pytest.approx([4, 3, 1, 0.5, 0])
    assert (forget.norm, forget.radius) == pytest.approx((4, 4))
    assert candidate.radius == pytest.approx(2)
    assert sum(abs(imaginary) > 1e-6 for _, imaginary in candidate.eigenvalues or []) == 4
    assert measure_matrices(model_of("mingru")) == [[]]


def test_perplexity_with_resets_is_that_of_segments_read_apart(tmp_path: Path) -> None:
    model, store = model_of("lstm", hidden_size=9), store_of(tmp_path, 100)
    text = Text("valid", store)
    found = measure_context(model, text, [1, 2, 4, 8])
    assert (found.num_tokens, found.lengths) == (96, [1, 2, 4, 8])
    ids = torch.from_numpy(store[0:97])[:, None]
    carried = model(ids[:-1], ids[1:]).nll[:, 0].double()
    assert found.carried == pytest.approx(carried.mean().item(), rel=1e-6)
    for length, loss in zip(found.lengths, found.reset, strict=True):
        apart = [
            model(ids[a : a + length], ids[a + 1 : a + length + 1]).nll[:, 0]
            for a in range(0, 96, length)
        ]
        assert loss == pytest.approx(torch.cat(apart).mean().item(), rel=1e-6)
    lost = torch.stack(apart) - carried.view(-1, 8)
    assert found.by_position == pytest.approx(lost.mean(0).tolist(), abs=1e-6)
    assert found.by_position[0] != 0


def test_a_model_without_memory_needs_no_context(tmp_path: Path) -> None:
    model = model_of("rnn")
    model.cells[0].get_parameter("weight_hh").data.zero_()
    found = measure_context(model, Text("valid", store_of(tmp_path, 70)), [1, 2, 4, 64])
    assert found.reset == pytest.approx([found.carried] * 4)
    assert found.effective == 1
    assert found.by_position == pytest.approx([0.0] * 64, abs=1e-6)


def test_update_ratios() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    fresh = torch.nn.Parameter(torch.zeros(2))
    ratios = UpdateRatios({"weight": weight, "fresh": fresh})
    weight.data += torch.tensor([0.3, 0.4])
    fresh.data += 1
    assert ratios.read() == pytest.approx({"weight": 0.1, "fresh": 2**0.5})


def test_advice_is_the_quantile_with_its_reasons() -> None:
    norms = [1.0] * 50 + [float(n) for n in np.linspace(1, 2, 49)] + [40.0]
    advice = advise(norms, 0.5, [(10, 1.5, 3.0), (20, 1.2, 60.0)])
    assert advice.suggested == pytest.approx(np.quantile(norms, 0.9), rel=0.05)
    said = " ".join(advice.reasons)
    assert "the largest norm seen in training is 60, 60 times the median" in said
    assert "the run's threshold 0.5 shortens 100% of these steps" in said
    assert "part of the learning rate" in said
    calm = " ".join(advise([1.0, 1.1, 1.2], None, []).reasons)
    assert "nothing explodes here" in calm
    assert "does not clip" in calm


def test_history_is_read_as_a_strangers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert gradient_norms(path) == []
    lines = [
        {"step": 5, "optim/gradient_norm": 0.5, "optim/largest_gradient_norm": 2.0},
        {"step": 6, "valid/loss": 1.0},
        {"step": 10, "optim/gradient_norm": None},
        {"step": 15, "optim/gradient_norm": 0.25},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert gradient_norms(path) == [(5, 0.5, 2.0), (15, 0.25, 0.25)]
    for damage in ('{"step": "x", "optim/gradient_norm": 1}\n', "[1]\n", "{\n"):
        path.write_text(damage)
        with pytest.raises(CheckpointError):
            gradient_norms(path)
