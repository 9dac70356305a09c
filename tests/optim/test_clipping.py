"""Norms are right at any scale, clipping does what torch's does, and bad gradients are flagged."""

import math

import pytest
import torch
from torch import nn

from lm.errors import ConfigError
from lm.optim import clipping
from lm.optim.clipping import ClipConfig, GradientNorms, clip_gradients

OFF = ClipConfig(norm=None)


def with_gradients(scale: float = 1.0, *, copies: int = 1) -> list[dict[str, nn.Parameter]]:
    """Parameters of several shapes, the same gradients in every copy; `frozen` has none."""
    result = []
    for _ in range(copies):
        draws = torch.Generator().manual_seed(0)
        shapes = {"embedding": (7, 4), "weight": (5, 3, 2), "bias": (5,), "scalar": ()}
        parameters = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
        for parameter in parameters.values():
            parameter.grad = scale * torch.randn(parameter.shape, generator=draws)
        parameters["frozen"] = nn.Parameter(torch.zeros(3))
        result.append(parameters)
    return result


def clipped(parameters: dict[str, nn.Parameter], norms: GradientNorms) -> torch.Tensor:
    """What the optimiser makes of the gradients."""
    return flat(parameters) * (1.0 if norms.coefficient is None else norms.coefficient)


def flat(parameters: dict[str, nn.Parameter]) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in parameters.values() if p.grad is not None]).double()


# The smallest scale is where the 1e-6 in the coefficient's denominator shows.
@pytest.mark.parametrize(
    ("scale", "max_norm"), [(1.0, 0.25), (1.0, 1.0), (1.0, 100.0), (1e-5, 1e-6)]
)
def test_clipping_by_norm_equals_torch(scale, max_norm):
    ours, theirs = with_gradients(scale, copies=2)
    norms = clip_gradients(ours, ClipConfig(norm=max_norm))
    total = nn.utils.clip_grad_norm_(theirs.values(), max_norm)
    torch.testing.assert_close(norms.total, total.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(clipped(ours, norms), flat(theirs), rtol=1e-6, atol=0)
    assert bool(norms.clipped) is (max_norm < 100)
    assert bool(norms.finite)


def test_norms_by_parameter_and_in_total():
    (parameters,) = with_gradients()
    expected = {n: p.grad.double().norm() for n, p in parameters.items() if p.grad is not None}
    norms = clip_gradients(parameters, ClipConfig(norm=0.1))
    assert norms.names == ("embedding", "weight", "bias", "scalar")
    torch.testing.assert_close(
        norms.by_parameter, torch.stack(list(expected.values())), rtol=1e-6, atol=0
    )
    expected_total = math.sqrt(sum(float(norm) ** 2 for norm in expected.values()))
    assert float(norms.total) == pytest.approx(expected_total, rel=1e-6)


@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_huge_finite_gradients_are_scaled_rather_than_zeroed(scale):
    ours, theirs = with_gradients(scale, copies=2)
    direction = flat(ours) / flat(ours).norm()
    norms = clip_gradients(ours, ClipConfig(norm=0.25))
    assert bool(norms.finite)
    assert bool(norms.clipped)
    torch.testing.assert_close(clipped(ours, norms), 0.25 * direction, rtol=1e-5, atol=0)
    nn.utils.clip_grad_norm_(theirs.values(), 0.25)  # the defect that this guards against
    assert flat(theirs).abs().max() == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-3, 1e20, 1e30])
def test_total_is_right_where_float32_squares_are_not(scale):
    (parameters,) = with_gradients(scale)
    norms = clip_gradients(parameters, OFF)
    assert float(norms.total) == pytest.approx(float(flat(parameters).norm()), rel=1e-6)


@pytest.mark.parametrize(("device", "dtype"), [("cuda", torch.float64), ("mps", torch.float32)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_ways_of_other_devices_measure_the_same(device, dtype, scale):
    (parameters,) = with_gradients(scale)
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    norms = clipping._norms(gradients, device)
    assert norms.dtype == dtype
    exact = torch.stack([gradient.double().norm() for gradient in gradients])
    torch.testing.assert_close(norms.double(), exact, rtol=1e-6, atol=0)
    total = float(clipping._total(norms))
    assert total == pytest.approx(float(exact.norm()), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("config", [OFF, ClipConfig(norm=1.0), ClipConfig(norm=None, value=0.1)])
@pytest.mark.parametrize("place", ["embedding", "bias", "scalar"])
def test_one_bad_element_anywhere_is_not_finite_and_not_called_clipped(bad, config, place):
    (parameters,) = with_gradients()
    parameters[place].grad.view(-1)[-1] = bad
    assert not bool(clipping._scaled_norm(parameters[place].grad).isfinite())
    norms = clip_gradients(parameters, config)
    assert not bool(norms.finite)
    assert not bool(norms.clipped)


@pytest.mark.parametrize(("limit", "clipped"), [(0.5, True), (50.0, False)])
def test_clipping_by_value_clamps_and_reports_the_norm_before(limit, clipped):
    ours, theirs = with_gradients(copies=2)
    before = float(flat(ours).norm())
    norms = clip_gradients(ours, ClipConfig(norm=None, value=limit))
    nn.utils.clip_grad_value_(theirs.values(), limit)
    assert torch.equal(flat(ours), flat(theirs))
    assert float(norms.total) == pytest.approx(before, rel=1e-6)
    assert bool(norms.clipped) is clipped


def test_a_negative_element_alone_counts_as_clipped_by_value():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([-3.0, 0.5])
    assert bool(clip_gradients({"w": parameter}, ClipConfig(norm=None, value=1.0)).clipped)
    assert parameter.grad.tolist() == [-1.0, 0.5]


def test_rows_that_occur_twice_are_added_up_before_a_sparse_gradient_is_measured():
    rows, values = torch.tensor([[2, 0, 2]]), torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 4.0]])
    norms = []
    for sparse in (True, False):
        parameter = nn.Parameter(torch.zeros(4, 2))
        gradient = torch.sparse_coo_tensor(rows, values, (4, 2), check_invariants=True)
        parameter.grad = gradient if sparse else gradient.to_dense()
        norms.append(clip_gradients({"w": parameter}, ClipConfig(norm=1.0)))
    assert float(norms[0].total) == pytest.approx(math.sqrt(2 + 25))
    assert float(norms[0].total) == float(norms[1].total)


def test_off_changes_nothing():
    (parameters,) = with_gradients()
    before = flat(parameters)
    assert not bool(clip_gradients(parameters, OFF).clipped)
    assert torch.equal(flat(parameters), before)


def test_zero_gradients_have_norm_zero_and_stay_zero():
    (parameters,) = with_gradients(0.0)
    norms = clip_gradients(parameters, ClipConfig(norm=1.0))
    assert float(norms.total) == 0
    assert bool(norms.finite)
    assert flat(parameters).abs().max() == 0
    assert float(clipping._scaled_norm(torch.zeros(3))) == 0


def test_a_large_matrix_is_measured_more_exactly_than_by_torch():
    draws = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(2000, 500))
    parameter.grad = torch.randn(2000, 500, generator=draws)
    exact = float(parameter.grad.double().norm())
    assert float(clip_gradients({"w": parameter}, OFF).total) == pytest.approx(exact, rel=1e-7)


def test_ranges_and_exclusion():
    with pytest.raises(
        ConfigError, match=r"trainer.clip.norm must be a finite number > 0, got nan"
    ):
        ClipConfig(norm=math.nan)
    with pytest.raises(ConfigError, match=r"trainer.clip.value must be a finite number > 0, got 0"):
        ClipConfig(norm=None, value=0.0)
    with pytest.raises(ConfigError, match=r"norm=1.0 and trainer.clip.value=2.0 exclude"):
        ClipConfig(norm=1.0, value=2.0)
