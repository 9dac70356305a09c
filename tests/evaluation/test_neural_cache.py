"""The neural cache equals its equations, position by position and word by word."""

import copy
import math
from pathlib import Path

import pytest
import torch
from evaluation_problem import V, block_of, model_of, resets_of, text_of

from lm.errors import ConfigError
from lm.evaluation import cache as cache_module
from lm.evaluation.cache import Cache, CacheConfig, NeuralCache, Step
from lm.evaluation.method import Static
from lm.evaluation.text import Text
from lm.models import RecurrentModel


def distributions(
    model: RecurrentModel, text: Text, *, window: int, theta: float, weight: float
) -> torch.Tensor:
    """p [N, V] by the equations of Grave et al., one position after the other, in float64."""
    tokens, targets = block_of(text)
    resets = resets_of(text)
    features, _ = model.features(tokens, resets=resets)
    h, log_p = features[:, 0].double(), model.head.log_prob(features)[:, 0].double()
    result, oldest = [], 0
    for t in range(len(h)):
        if resets is not None and resets[t]:
            oldest = t
        p = log_p[t].exp()
        held = range(max(oldest, t - window), t)
        if held:
            cached = torch.zeros(V, dtype=torch.float64)
            for i in held:
                cached[targets[i, 0]] += math.exp(theta * float(h[t] @ h[i]))
            p = (1 - weight) * p + weight * cached / cached.sum()
        result.append(p)
    return torch.stack(result)


@pytest.mark.parametrize("window", [1, 3, 40, 1000])
@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize("units", [None, [0, 9, 10, 33]])
def test_the_cache_equals_a_slow_loop(
    tmp_path: Path, window: int, chunk: int, units: list[int] | None
) -> None:
    text, model = text_of(tmp_path, 70, copies=3, units=units), model_of(scale=3)
    p = distributions(model, text, window=window, theta=1.7, weight=0.3)
    wanted = -p.gather(1, block_of(text)[1]).log().squeeze(1)
    config = CacheConfig(window=window, theta=1.7, weight=0.3)
    method = Cache(model, config, window=chunk)
    torch.testing.assert_close(method.nats(text), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(wanted, Static(model, window=64).nats(text), atol=1e-3)


def test_parts_of_a_window_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, model = text_of(tmp_path, 300, units=[50, 150]), model_of(scale=3)
    config = CacheConfig(window=37, theta=1.0, weight=0.5)
    whole = Cache(model, config, window=1024).nats(text)
    monkeypatch.setattr(cache_module, "_ELEMENTS", 37 * 5)
    parts = Cache(model, config, window=1024).nats(text)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("theta", [0.0, 0.8, 40.0])
def test_the_mixture_sums_to_one_over_the_vocabulary(tmp_path: Path, theta: float) -> None:
    text, model = text_of(tmp_path, 40), model_of(scale=3)
    tokens, targets = block_of(text)
    features, _ = model.features(tokens)
    log_p = model.head.log_prob(features)[:, 0].double()
    features, targets = features[:, 0], targets[:, 0]
    memory = NeuralCache(12, [theta])
    for t in range(len(targets)):
        total = 0.0
        for word in range(V):
            asked = Step(
                torch.tensor([word]), -log_p[t, word : word + 1].float(), features[t : t + 1]
            )
            cached = copy.copy(memory).log_prob(asked)[0, 0].double().exp()
            total += 0.6 * log_p[t, word].exp().item() + 0.4 * cached.item()
        assert total == pytest.approx(1, abs=1e-5)
        seen = Step(targets[t : t + 1], -log_p[t, targets[t]][None].float(), features[t : t + 1])
        memory.log_prob(seen)


def test_an_empty_cache_and_no_weight_are_the_model_alone(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 60, units=[20]), model_of()
    plain = Static(model, window=16).nats(text)
    nothing = Cache(model, CacheConfig(theta=0.5, weight=0.0), window=16).nats(text)
    torch.testing.assert_close(nothing, plain, rtol=1e-6, atol=1e-6)
    some = Cache(model, CacheConfig(theta=0.5, weight=0.9), window=16).nats(text)
    same = torch.isclose(some, plain, rtol=1e-6, atol=1e-6).nonzero().flatten().tolist()
    assert same == [0, 20]  # the first position, and the one after the reset


def test_large_similarities_do_not_overflow(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 60, copies=2), model_of(scale=30)
    nats = Cache(model, CacheConfig(theta=1e4, weight=0.5), window=16).nats(text)
    assert nats.isfinite().all()


def test_what_is_tuned_is_the_best_and_what_is_given_stays(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 400, copies=8), model_of(scale=3)

    def loss(theta: float, weight: float) -> float:
        config = CacheConfig(window=100, theta=theta, weight=weight)
        return Cache(model, config, window=64).nats(text).mean().item()

    method = Cache(model, CacheConfig(window=100), window=64)
    assert method.needs_tuning
    method.tune(text)
    assert method.tuned_on == "toy"
    theta, weight = method.values["theta"], method.values["weight"]
    best = loss(theta, weight)
    assert best < Static(model, window=64).nats(text).mean().item() - 0.3
    for other in (0.8 * weight, weight + 0.2 * (1 - weight)):
        assert best < loss(theta, other)
    for factor in (0.5, 2.0):
        assert best < loss(factor * theta, weight)
    half = Cache(model, CacheConfig(window=100, theta=theta), window=64)
    half.tune(text)
    assert half.values == pytest.approx({"theta": theta, "weight": weight}, abs=1e-4)
    weighted = Cache(model, CacheConfig(window=100, weight=0.2), window=64)
    weighted.tune(text)
    assert weighted.values["weight"] == 0.2
    given = Cache(model, CacheConfig(theta=theta, weight=weight), window=64)
    assert not given.needs_tuning
    assert given.tuned_on is None


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"window": 0}, "cache.window must be >= 1, got 0"),
        ({"theta": -1.0}, "cache.theta must be a finite number >= 0, got -1.0"),
        ({"weight": 1.0}, r"cache.weight must be a number in \[0, 1\), got 1.0"),
    ],
)
def test_ranges(fields: dict[str, float], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        CacheConfig(**fields)
