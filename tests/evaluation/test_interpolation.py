"""Mixtures: log-sum-exp of weighted probabilities, with the weights of largest likelihood."""

from pathlib import Path

import pytest
import torch
from evaluation_problem import model_of, text_of

from lm.evaluation.interpolation import Interpolated, mix, mixture_weights
from lm.evaluation.method import Static


def test_a_mixture_adds_probabilities_and_takes_zeros() -> None:
    p = torch.tensor([[0.5, 0.1, 0.0], [0.25, 0.0, 0.3]], dtype=torch.float64)
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    torch.testing.assert_close(mix(p.log(), weights).exp(), 0.4 * p[0] + 0.6 * p[1])
    alone = torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(mix(p.log(), alone).exp(), p[0])


def test_the_weights_are_found_again_and_are_the_best() -> None:
    draws = torch.Generator().manual_seed(0)
    true = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    p = torch.rand(3, 20, generator=draws, dtype=torch.float64) ** 3
    p /= p.sum(1, keepdim=True)  # three distributions over 20 words
    words = torch.multinomial(true @ p, 50_000, replacement=True, generator=draws)
    log_probs = p.log()[:, words]
    weights = mixture_weights(log_probs)
    torch.testing.assert_close(weights, true, rtol=0, atol=0.05)
    best = mix(log_probs, weights).mean()
    for shift in ([0.01, -0.01, 0], [-0.01, 0, 0.01], [0, 0.01, -0.01]):
        assert best > mix(log_probs, weights + torch.tensor(shift)).mean()


def test_models_are_mixed_and_none_is_worse_for_it(tmp_path: Path) -> None:
    text = text_of(tmp_path, 300)
    base = Static(model_of(scale=2), window=64)
    other = Static(model_of("gru", scale=2), window=64, name="other")
    method = Interpolated(base, [other])
    assert (method.name, method.needs_tuning) == ("static+interpolated", True)
    method.tune(text)
    weights = method.values
    assert sum(weights.values()) == pytest.approx(1)
    wanted = -(
        weights["static"] * (-base.nats(text)).exp() + weights["other"] * (-other.nats(text)).exp()
    ).log()
    torch.testing.assert_close(method.nats(text), wanted)
    assert wanted.mean() < min(base.nats(text).mean(), other.nats(text).mean())
