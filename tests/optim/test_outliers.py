"""Steps with outlying gradients, clipping row by row, and weight decay with exclusions."""

import pytest
import torch
from torch import nn

from lm.errors import ConfigError
from lm.optim.clipping import ClipConfig, clip_gradients
from lm.optim.optimizers import OPTIMIZERS
from lm.optim.outliers import OutlierConfig, Outliers

CPU = torch.device("cpu")


def judged(norms: list[float], sigmas: float, history: int) -> list[bool]:
    outliers = Outliers(OutlierConfig(sigmas=sigmas, history=history), CPU)
    found = [outliers.judge(torch.tensor(norm, dtype=torch.float64)) for norm in norms]
    return [bool(flag) for flag in found]


def test_an_outlier_is_far_above_the_last_norms() -> None:
    norms = [1.0, 1.2, 0.8, 1.1, 0.9, 1.6, 1.0, 5.0, 1.3, 1.2, 6.0]
    expected, noted = [], []
    for norm in norms:
        last = torch.tensor(noted[-4:], dtype=torch.float64)
        known = len(last) == 4
        limit = float(last.mean() + 3 * last.std()) if known else norm
        expected.append(norm > limit)
        noted.append(min(norm, max(limit, 1.1 * float(last.mean()))) if known else norm)
    assert judged(norms, 3.0, 4) == expected
    assert expected.count(True) >= 2
    assert not any(judged([1.0, 100.0, 1.0], 3.0, 4)), "too few norms are known"


def test_norms_that_are_not_finite_are_not_remembered() -> None:
    nan, inf = float("nan"), float("inf")
    plain = judged([1.0, 1.2, 0.8, 5.0, 1.0], 3.0, 3)
    mixed = judged([1.0, nan, 1.2, inf, 0.8, 5.0, 1.0], 3.0, 3)
    assert [mixed[k] for k in (0, 2, 4, 5, 6)] == plain


def test_a_spike_hides_none_of_those_that_follow() -> None:
    usual = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 1.0] * 4
    norms = [*usual, 1e6, *usual[:4], 10.0, *usual[:4], 1e9]
    found = judged(norms, 6.0, 32)
    assert [k for k, flag in enumerate(found) if flag] == [32, 37, 42]


@pytest.mark.parametrize("sigmas", [0.5, 3.0, 6.0])
@pytest.mark.parametrize("before", [[1.0] * 32, [1.0, 1.1, 0.9, 1.0] * 8])
def test_a_lasting_change_of_scale_becomes_the_norm(before: list[float], sigmas: float) -> None:
    found = judged([*before, *[100.0] * 300], sigmas, 32)
    assert found[32]
    assert not any(found[-100:])


def test_off_looks_at_nothing() -> None:
    assert Outliers(OutlierConfig(), CPU).judge(torch.tensor(1e9)) is None


def test_restored_outliers_go_on() -> None:
    norms = [1.0, 1.5, 0.7, 3.0, 1.0, 1.1, 2.2]
    first = Outliers(OutlierConfig(sigmas=1.0, history=3), CPU)
    for norm in norms[:4]:
        first.judge(torch.tensor(norm, dtype=torch.float64))
    second = Outliers(OutlierConfig(sigmas=1.0, history=3), CPU)
    second.load({name: tensor.clone() for name, tensor in first.tensors.items()})
    for norm in norms[4:]:
        value = torch.tensor(norm, dtype=torch.float64)
        assert torch.equal(first.judge(value), second.judge(value))


def with_gradients() -> dict[str, nn.Parameter]:
    draws = torch.Generator().manual_seed(2)
    parameters = {
        "matrix": nn.Parameter(torch.randn(5, 3, dtype=torch.float64, generator=draws)),
        "vector": nn.Parameter(torch.randn(4, dtype=torch.float64, generator=draws)),
        "zeros": nn.Parameter(torch.zeros(2, 3, dtype=torch.float64)),
    }
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, dtype=torch.float64, generator=draws)
    return parameters


def test_adaptive_clipping_scales_each_row_to_its_weight() -> None:
    limit, parameters = 0.3, with_gradients()
    before = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    norms = clip_gradients(parameters, ClipConfig(norm=None, adaptive=limit))
    assert bool(norms.clipped)
    assert norms.coefficient is None
    clipped = 0
    for name, parameter in parameters.items():
        rows = before[name] if parameter.ndim > 1 else before[name][None]
        weights = parameter.detach() if parameter.ndim > 1 else parameter.detach()[None]
        for k, (row, weight) in enumerate(zip(rows, weights, strict=True)):
            most = limit * max(1e-3, float(weight.square().sum().sqrt()))
            scale = min(1.0, most / float(row.square().sum().sqrt()))
            clipped += scale < 1
            found = parameter.grad[k] if parameter.ndim > 1 else parameter.grad
            torch.testing.assert_close(found, row * scale, rtol=1e-12, atol=0)
    assert clipped > 0
    loose = with_gradients()
    norms = clip_gradients(loose, ClipConfig(norm=None, adaptive=1e6))
    assert not bool(norms.clipped)


def test_adaptive_clipping_of_a_sparse_gradient_looks_at_its_rows() -> None:
    weight = nn.Parameter(torch.arange(12.0, dtype=torch.float64).view(4, 3))
    rows, values = torch.tensor([[3, 1]]), torch.ones(2, 3, dtype=torch.float64) * 50
    weight.grad = torch.sparse_coo_tensor(rows, values, (4, 3), check_invariants=True)
    clip_gradients({"w": weight}, ClipConfig(norm=None, adaptive=0.1))
    dense = weight.grad.to_dense()
    for row in (1, 3):
        most = 0.1 * float(weight.detach()[row].norm())
        assert float(dense[row].norm()) == pytest.approx(most)
    assert float(dense[0].abs().sum()) == 0


def test_ways_of_clipping_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"trainer.clip.norm=0.25 and trainer.clip.adaptive=0.1"):
        ClipConfig(adaptive=0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_weight_decay_with_exclusions(name: str) -> None:
    """Without a gradient to speak of, decay is all that moves a parameter."""

    def moved(no_decay: list[str]) -> dict[str, bool]:
        parameters = {
            "embedding.weight": nn.Parameter(torch.ones(3, 2)),
            "layers.0.weight_hh": nn.Parameter(torch.ones(3, 2)),
            "layers.0.bias_ih": nn.Parameter(torch.ones(3)),
        }
        fields: dict[str, object] = {"lr": 0.1, "weight_decay": 0.5, "no_decay": no_decay}
        if name == "muon":
            fields["adamw_weight_decay"] = 0.5
        optimizers = OPTIMIZERS[name](**fields).build(parameters)
        for p in parameters.values():
            p.grad = torch.zeros_like(p)
        optimizers.step(torch.tensor(False))
        return {key: not bool((p == 1).all()) for key, p in parameters.items()}

    assert all(moved([]).values())
    assert moved(["*bias*", "embedding.*"]) == {
        "embedding.weight": False, "layers.0.weight_hh": True, "layers.0.bias_ih": False
    }  # fmt: skip


def test_exclusions_that_exclude_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="exempts from a weight decay that is 0"):
        OPTIMIZERS["sgd"](no_decay=["*bias*"])
    config = OPTIMIZERS["sgd"](weight_decay=0.1, no_decay=["*biass*"])
    weights: dict[str, nn.Parameter] = {"head.bias": nn.Parameter(torch.ones(2))}
    with pytest.raises(ConfigError, match=r"no parameter matches '\*biass\*'"):
        config.build(weights)
