"""Averages of weights: their numbers, when they begin, and that they leave the iterates alone."""

import json

import torch
from torch import Tensor, nn

from lm.optim.averaging import AverageKind, Averages, AveragingConfig

NO, YES = torch.tensor(False), torch.tensor(True)


def walk(averages: Averages, parameter: nn.Parameter, values: list[float]) -> None:
    for value in values:
        parameter.data.fill_(value)
        averages.update(NO)


def of(**fields: object) -> tuple[Averages, nn.Parameter]:
    parameter = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    return Averages(AveragingConfig(**fields), {"p": parameter}), parameter


def test_the_mean_of_all_iterates_since_the_start() -> None:
    averages, p = of(kind=AverageKind.mean)
    p.data.fill_(100.0)
    assert averages.begin_if_due(0.0)
    walk(averages, p, [1.0, 2.0, 6.0])
    torch.testing.assert_close(averages.tensors["p"], torch.full_like(p, 3.0).detach())
    assert float(p.detach()[0, 0]) == 6.0


def test_the_exponential_average_starts_as_a_mean() -> None:
    averages, p = of(kind=AverageKind.ema, decay=0.75)
    averages.begin_if_due(0.0)
    values, expected = [4.0, 8.0, 3.0, 1.0, 5.0, 2.0], 0.0
    for n, value in enumerate(values, start=1):
        share = max(1 / n, 0.25)
        expected += share * (value - expected)
    walk(averages, p, values)
    torch.testing.assert_close(averages.tensors["p"], torch.full_like(p, expected).detach())


def test_a_skipped_step_counts_for_nothing() -> None:
    averages, p = of(kind=AverageKind.mean)
    averages.begin_if_due(0.0)
    walk(averages, p, [1.0])
    p.data.fill_(50.0)
    averages.update(YES)
    walk(averages, p, [3.0])
    torch.testing.assert_close(averages.tensors["p"], torch.full_like(p, 2.0).detach())


def test_the_start_waits_for_a_validation_worse_than_those_long_ago() -> None:
    """Merity et al. 2018, algorithm 1: v_k > min of v_0 … v_{k−n−1}."""
    losses = [5.0, 4.0, 3.0, 3.5, 3.6, 3.2, 2.9, 2.95, 2.91, 3.01, 2.99]
    patience = 3
    averages, _ = of(kind=AverageKind.mean, nonmonotone=patience)
    begun = [k for k, loss in enumerate(losses) if averages.observe(loss, 0.0)]
    due = [k for k in range(len(losses))
           if k > patience and losses[k] > min(losses[: k - patience])]  # fmt: skip
    assert begun == due[:1]
    assert averages.active


def test_the_start_waits_for_its_epoch() -> None:
    averages, _ = of(kind=AverageKind.ema, start_epoch=2)
    assert not averages.begin_if_due(1.99)
    assert averages.begin_if_due(2.0)
    assert not averages.begin_if_due(3.0), "it begins once"
    waiting, _ = of(kind=AverageKind.mean, start_epoch=2, nonmonotone=0)
    assert not waiting.observe(1.0, 1.0)
    assert not waiting.observe(2.0, 1.5)
    assert waiting.observe(3.0, 2.0)


def test_averages_stand_in_for_the_weights_and_give_the_place_back() -> None:
    averages, p = of(kind=AverageKind.mean)
    averages.begin_if_due(0.0)
    walk(averages, p, [1.0, 3.0])
    address = p.data_ptr()
    with averages.applied():
        assert p.data_ptr() == address
        assert float(p.detach()[0, 0]) == 2.0
    assert float(p.detach()[0, 0]) == 3.0
    assert float(averages.tensors["p"][0, 0]) == 2.0


def test_restored_to_the_last_bit() -> None:
    draws = torch.Generator().manual_seed(1)

    def step(averages: Averages, p: nn.Parameter, change: Tensor) -> None:
        p.data.add_(change)
        averages.update(NO)

    changes = torch.randn(8, 2, 3, dtype=torch.float64, generator=draws)
    averages, p = of(kind=AverageKind.ema, decay=0.8)
    averages.begin_if_due(0.0)
    for change in changes[:5]:
        step(averages, p, change)
    saved = {n: t.clone() for n, t in averages.iterates().items()}, averages.state()
    model = {n: t.clone() for n, t in averages.tensors.items()}
    again, q = of(kind=AverageKind.ema, decay=0.8)
    q.data.copy_(model["p"])
    again.load(saved[1], saved[0])
    for change in changes[5:]:
        step(averages, p, change)
        step(again, q, change)
    assert torch.equal(p, q)
    assert torch.equal(averages.tensors["p"], again.tensors["p"])


def test_a_loss_that_is_no_number_survives_strict_json() -> None:
    averages, _ = of(kind=AverageKind.mean, nonmonotone=3)
    for loss in (2.0, float("nan"), 1.0):
        averages.observe(loss, 0.0)
    saved = json.loads(json.dumps(averages.state(), allow_nan=False))
    again, _ = of(kind=AverageKind.mean, nonmonotone=3)
    again.load(saved, {})
    assert again.state() == averages.state()
    assert again.observe(3.0, 0.0) == averages.observe(3.0, 0.0)
