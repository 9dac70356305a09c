"""Dynamic evaluation equals its formulas, predicts before it learns, and leaves no trace."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluation_problem import block_of, ids_of, model_of, resets_of, store_of, text_of
from torch import Tensor

from lm.errors import ConfigError, NumericError
from lm.evaluation.adaptation import DynamicConfig, Rule, Update, root_mean_squares
from lm.evaluation.cache import Cache, CacheConfig, NeuralCache, Step
from lm.evaluation.dynamic import Dynamic
from lm.evaluation.method import Static
from lm.evaluation.search import descend
from lm.evaluation.text import Text
from lm.models import CELLS, RecurrentModel
from lm.models.base import detach


def mean_nats(
    model: RecurrentModel, tokens: Tensor, targets: Tensor, state: object, resets: object
) -> tuple[Tensor, object]:
    """−log p through the whole softmax, for torch's own autograd."""
    log_p, state = model.log_prob(tokens, state, resets=resets)  # type: ignore[arg-type]
    return -log_p.gather(2, targets[..., None]).squeeze(2), detach(state)


def slow_scales(model: RecurrentModel, train: Text, segment: int, total: int) -> dict[str, Tensor]:
    """√MS_g by name, over segments of up to 100 streams side by side."""
    model = copy.deepcopy(model).requires_grad_(True)
    num_streams = min(100, len(train.store) // (segment + 1))
    length = (len(train.store) - 1) // num_streams
    ids = torch.from_numpy(train.store[0 : len(train.store)])
    at = torch.arange(num_streams) * length
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    count, state = 0, None
    for begin in range(0, length - segment + 1, segment):
        if count and (count + 1) * segment * num_streams > total:
            break
        steps = torch.arange(begin, begin + segment)[:, None]
        model.zero_grad()
        nats, state = mean_nats(model, ids[at + steps], ids[at + steps + 1], state, None)
        nats.mean().backward()
        for name, p in model.named_parameters():
            if p.grad is not None:
                sums[name] += p.grad**2
        count += 1
    return {name: (value.detach() / count).sqrt() for name, value in sums.items()}


def slow(
    model: RecurrentModel, text: Text, config: DynamicConfig, scales: Mapping[str, Tensor] | None
) -> Tensor:
    """The equations of Krause et al. on the parameters by name, one segment after the other."""
    assert config.lr is not None
    assert config.decay is not None
    model = copy.deepcopy(model).requires_grad_(True)
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens, targets = block_of(text)
    resets = resets_of(text)
    state, found = None, []
    for begin in range(0, len(tokens), config.segment):
        some = slice(begin, begin + config.segment)
        model.zero_grad()
        reset = None if resets is None else resets[some]
        nats, state = mean_nats(model, tokens[some], targets[some], state, reset)
        found.append(nats.detach()[:, 0])
        nats.mean().backward()
        for name, p in model.named_parameters():
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            back = trained[name] - p.data
            if scales is None:
                p.data += -config.lr * gradient + config.decay * back
                continue
            mean = sum(s.sum() for s in scales.values()) / sum(s.numel() for s in scales.values())
            norm = (scales[name] / mean).clamp(max=1 / config.decay)
            p.data += -config.lr * gradient / (scales[name] + config.eps)
            p.data += config.decay * norm * back
    return torch.cat(found).double()


MODELS = [{}, {"tied": True, "embedding_size": 6, "num_layers": 2},
          {"initial_state": type(CELLS["lstm"]().initial_state).learned}]  # fmt: skip


@pytest.mark.parametrize("fields", MODELS)
@pytest.mark.parametrize("units", [None, [12, 33]])
@pytest.mark.parametrize("rule", Rule)
def test_it_equals_a_slow_loop(
    tmp_path: Path, fields: dict[str, object], units: list[int] | None, rule: Rule
) -> None:
    text, model = text_of(tmp_path, 64, copies=2, units=units), model_of(scale=2, **fields)
    train = text_of(tmp_path, 1234, seed=1)
    if rule is Rule.sgd:
        config, scales = DynamicConfig(rule=rule, lr=0.5, decay=0.05), None
    else:
        # Large enough for some pulls to be clipped.
        config = DynamicConfig(lr=2e-3, decay=0.4, eps=1e-3, statistics_tokens=1000)
        scales = slow_scales(model, train, 5, 1000)
        mean = sum(s.sum() for s in scales.values()) / sum(s.numel() for s in scales.values())
        assert any((s / mean > 1 / 0.4).any() for s in scales.values())
    wanted = slow(model, text, config, scales)
    nats = Dynamic(model, config, train=train).nats(text)
    torch.testing.assert_close(nats, wanted, rtol=2e-5, atol=2e-5)
    assert (nats - Static(model, window=64).nats(text)).abs().max() > 0.05


def test_the_statistics_are_the_root_mean_squares(tmp_path: Path) -> None:
    train, model = text_of(tmp_path, 1234, seed=1), model_of(scale=2)
    for total in (1, 900, 10**6):
        config = DynamicConfig(statistics_tokens=total, segment=4)
        wanted = slow_scales(model, train, 4, total)
        for found, scale in zip(
            root_mean_squares(model, train, config), wanted.values(), strict=True
        ):
            torch.testing.assert_close(found, scale, rtol=1e-4, atol=1e-7)
    short = text_of(tmp_path, 3)
    assert all(s.isfinite().all() for s in root_mean_squares(model, short, DynamicConfig()))


def test_no_learning_rate_is_static(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 120, units=[50]), model_of()
    config = DynamicConfig(rule=Rule.sgd, lr=0.0, decay=0.5)
    nats = Dynamic(model, config, train=None).nats(text)
    torch.testing.assert_close(nats, Static(model, window=64).nats(text), rtol=1e-6, atol=1e-6)


def test_a_target_is_predicted_before_it_is_learned(tmp_path: Path) -> None:
    ids = ids_of(80)
    changed = ids.copy()
    changed[41:] = (changed[41:] + 1) % 13
    config, model = DynamicConfig(rule=Rule.sgd, lr=2.0, decay=0.0), model_of()
    texts = [
        Text(name, store_of(tmp_path / name, some)) for name, some in (("a", ids), ("b", changed))
    ]
    first, second = (Dynamic(model, config, train=None).nats(text) for text in texts)
    # Target 40 (token 41) is the first that differs, in the segment of targets 40 to 44.
    assert torch.equal(first[:40], second[:40])
    assert (first[40:] != second[40:]).all()
    # Within a segment nothing was learned of its own targets: their order in time is the model's.
    alone = Static(model, window=64).nats(texts[0].first(5))
    torch.testing.assert_close(first[:5], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_restored_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    text, model = text_of(tmp_path, 60), model_of()
    model.embedding.weight.requires_grad_(True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    compute = model.compute
    method = Dynamic(model, DynamicConfig(rule=Rule.sgd, lr=3.0, decay=0.0), train=None)
    if fails:
        whole, calls = Update.__call__, []

        def update(self: Update, gradients: object) -> None:
            whole(self, gradients)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("in the middle")

        monkeypatch.setattr(Update, "__call__", update)
        with pytest.raises(RuntimeError, match="in the middle"):
            method.nats(text)
    else:
        method.nats(text)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.requires_grad == (name == "embedding.weight")
        assert p.grad is None
    assert model.compute is compute


def test_the_model_is_restored_before_an_error_beside_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, model = text_of(tmp_path, 60), model_of()
    before = model.head.weight.clone()
    dynamic = Dynamic(model, DynamicConfig(rule=Rule.sgd, lr=3.0, decay=0.0), train=None)
    whole = NeuralCache.log_prob

    def log_prob(self: NeuralCache, step: Step) -> Tensor:
        if not torch.equal(model.head.weight, before):
            raise RuntimeError("after the first update")
        return whole(self, step)

    monkeypatch.setattr(NeuralCache, "log_prob", log_prob)
    cached = Cache(model, CacheConfig(theta=1.0, weight=0.1), window=64, steps=dynamic.steps)
    with pytest.raises(RuntimeError, match="after the first update") as held:
        cached.nats(text)
    assert torch.equal(model.head.weight, before), held  # the frames of the error are alive


def test_it_learns_a_text_that_repeats_itself_and_tunes_how(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 120, copies=8), model_of()
    plain = Static(model, window=64).nats(text).mean().item()
    for rule in Rule:
        config = DynamicConfig(rule=rule, segment=8)
        method = Dynamic(model, config, train=text_of(tmp_path, 300, seed=3))
        assert method.needs_tuning
        method.tune(text)
        assert method.tuned_on == "toy"
        best = method.nats(text).mean().item()
        assert best < plain - 0.1
        for factor in (0.5, 2.0):
            values = {**method.values, "lr": factor * method.values["lr"]}
            trial = Dynamic(model, replace(config, **values), train=method.train)
            assert trial.nats(text).mean().item() >= best


def test_given_values_are_not_tuned(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 40), model_of()
    method = Dynamic(model, DynamicConfig(rule=Rule.sgd, decay=0.25), train=None)
    method.tune(text)
    assert method.values["decay"] == 0.25
    assert "lr" in method.values
    whole = Dynamic(model, DynamicConfig(rule=Rule.sgd, lr=0.1, decay=0.2), train=None)
    assert not whole.needs_tuning


def test_tuning_reads_a_beginning_unless_told_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm.evaluation.dynamic.TUNE_TOKENS", 40)
    monkeypatch.setattr("lm.evaluation.search._MOST_TRIALS", 3)
    text, model = text_of(tmp_path, 100), model_of()
    for limit, wanted in ((None, "the first 40"), (60, "the first 60"), (1000, "toy")):
        method = Dynamic(model, DynamicConfig(rule=Rule.sgd, decay=0.1), train=None)
        method.tune(replace(text, limit=limit))
        assert str(method.tuned_on).startswith(wanted)


def test_divergence_is_the_users_to_know(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 100), model_of()
    with torch.no_grad():
        model.head.weight.mul_(1e36)  # so that its gradients overflow
    method = Dynamic(model, DynamicConfig(rule=Rule.sgd, lr=1e12, decay=0.0), train=None)
    with pytest.raises(NumericError, match=r"diverged on toy with dynamic.lr=1e\+12"):
        method.nats(text)


def test_a_cache_beside_the_learning_model(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 90, copies=3, units=[40]), model_of(scale=2)
    learning = DynamicConfig(rule=Rule.sgd, lr=0.5, decay=0.01)
    dynamic = Dynamic(model, learning, train=None)
    still = Dynamic(model, replace(learning, lr=0.0), train=None)
    config = CacheConfig(window=30, theta=1.0, weight=0.4)

    def cached(method: Dynamic) -> Tensor:
        return Cache(model, config, window=64, steps=method.steps).nats(text)

    plain = Cache(model, config, window=64).nats(text)
    torch.testing.assert_close(cached(still), plain, rtol=1e-5, atol=1e-5)
    nothing = CacheConfig(window=30, theta=1.0, weight=0.0)
    alone = Cache(model, nothing, window=64, steps=dynamic.steps).nats(text)
    expected = Dynamic(model, learning, train=None).nats(text)
    torch.testing.assert_close(alone, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(dynamic.nats(text), expected), "what the cache's reading left"
    assert not torch.allclose(cached(dynamic), plain, atol=1e-2)


def test_the_search_finds_a_minimum_and_asks_once() -> None:
    asked: list[tuple[float, float]] = []

    def loss(point: Mapping[str, float]) -> float:
        a, b = math.log2(point["a"]), math.log2(point["b"])
        asked.append((a, b))
        return math.nan if a > 7 else (a - 6) ** 2 + (b + 3) ** 2 + 0.5 * (a - 6) * (b + 3)

    found = descend(loss, {"a": 1.0, "b": 2.0}, factor=2.0)
    assert found == {"a": 64.0, "b": 0.125}
    assert len(asked) == len(set(asked)) < 40
    assert descend(lambda point: math.nan, {"a": 1.0}, factor=2.0) == {"a": 1.0}


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"segment": 0}, "dynamic.segment must be >= 1, got 0"),
        ({"lr": -1.0}, "dynamic.lr must be a finite number >= 0"),
        ({"decay": 1.0}, r"dynamic.decay must be a number in \[0, 1\)"),
        ({"eps": 0.0}, "dynamic.eps must be a finite number > 0"),
        ({"rule": Rule.sgd, "eps": 0.1}, "dynamic.eps is set, but dynamic.rule=sgd"),
    ],
)
def test_ranges(fields: dict[str, object], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        DynamicConfig(**fields)  # type: ignore[arg-type]
