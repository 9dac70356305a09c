"""Temperature: one is the model itself, and the tuned one is a minimum."""

from pathlib import Path

import pytest
import torch
from evaluation_problem import V, block_of, model_of, resets_of, text_of

from lm.evaluation.method import Static
from lm.evaluation.temperature import Temperature


def test_temperature_one_is_static(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 100, units=[30, 60]), model_of()
    plain = Static(model, window=16).nats(text)
    method = Temperature(model, window=7, value=1.0)
    assert not method.needs_tuning
    torch.testing.assert_close(method.nats(text), plain, rtol=1e-6, atol=1e-6)


def test_temperature_divides_log_probabilities_and_normalises(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 60, units=[30]), model_of(scale=2)
    tokens, targets = block_of(text)
    log_p, _ = model.log_prob(tokens, resets=resets_of(text))
    wanted = -(log_p[:, 0].double() / 1.7).log_softmax(-1).gather(1, targets).squeeze(1)
    nats = Temperature(model, window=16, value=1.7).nats(text)
    torch.testing.assert_close(nats, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 4.0, 20.0])
def test_the_tuned_temperature_is_a_minimum(tmp_path: Path, scale: float) -> None:
    # A model that is too sure of itself, or whose few hints are better than it thinks.
    text, model = text_of(tmp_path, 400), model_of(scale=scale)
    method = Temperature(model, window=64, value=None)
    assert method.needs_tuning
    method.tune(text)
    assert method.tuned_on == "toy"
    best = method.values["temperature"]
    losses = [
        Temperature(model, window=64, value=factor * best).nats(text).mean().item()
        for factor in (0.9, 0.99, 1.0, 1.01, 1.1)
    ]
    assert losses[2] <= min(losses) + 1e-7
    assert losses[0] > losses[2] < losses[4]


def test_a_uniform_model_is_uniform_at_any_temperature(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 50), model_of(scale=0)
    method = Temperature(model, window=64, value=None)
    method.tune(text)
    torch.testing.assert_close(method.nats(text).exp(), torch.full((49,), float(V)).double())
