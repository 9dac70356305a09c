"""Intervals cover, p-values are honest, and blocks are what they say."""

from pathlib import Path

import pytest
import torch
from evaluation_problem import text_of
from torch import Generator, Tensor

from lm.errors import ConfigError
from lm.evaluation import bootstrap
from lm.evaluation.bootstrap import Blocks, BootstrapConfig, blocks_of, interval, paired

FEW = BootstrapConfig(resamples=400)


def blocks(number: int = 100, size: int = 20) -> Blocks:
    return Blocks(torch.arange(1, number + 1) * size, "blocks")


def topical(draws: Generator, number: int = 100, size: int = 20) -> Tensor:
    """Nats of mean 2 that are alike within a block, as texts are."""
    level = torch.randn(number, 1, generator=draws, dtype=torch.float64)
    return (2 + level + torch.randn(number, size, generator=draws, dtype=torch.float64)).flatten()


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    draws = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(300):
        found = interval(topical(draws), blocks(), FEW)
        assert found is not None
        covered += found.low <= 2 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_interval_is_that_of_a_slow_bootstrap() -> None:
    nats = topical(torch.Generator().manual_seed(2), number=30)
    sizes = [17, 23] * 15  # blocks of unequal length: the mean is per token, not per block
    uneven = Blocks(torch.tensor(sizes).cumsum(0), "uneven")
    parts = nats.split(sizes)
    draws = torch.Generator().manual_seed(9)
    means = []
    for _ in range(4000):
        chosen = torch.randint(30, (30,), generator=draws).tolist()
        means.append(torch.cat([parts[k] for k in chosen]).mean())
    wanted = torch.stack(means).quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
    found = interval(nats, uneven, BootstrapConfig(level=0.9))
    assert found is not None
    assert [found.low, found.high] == pytest.approx(wanted.tolist(), abs=0.02)
    assert found.perplexity == pytest.approx(wanted.exp().tolist(), rel=0.02)


def test_draws_are_decided_by_the_seed_and_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nats = topical(torch.Generator().manual_seed(3))
    first = interval(nats, blocks(), FEW)
    assert interval(nats, blocks(), FEW) == first
    assert interval(nats, blocks(), BootstrapConfig(resamples=400, seed=2)) != first
    monkeypatch.setattr(bootstrap, "_ELEMENTS", 700)
    assert interval(nats, blocks(), FEW) == first


def test_p_values_are_uniform_when_there_is_no_difference() -> None:
    draws = torch.Generator().manual_seed(4)
    values = []
    for _ in range(300):
        text = topical(draws)
        noise = 0.3 * topical(draws) - 0.6
        found = paired(text + noise, text, blocks(), FEW).p_value
        assert found is not None
        values.append(found)
    for level in (0.05, 0.25, 0.5, 0.75):
        share = sum(value <= level for value in values) / 300
        assert share == pytest.approx(level, abs=0.07)


def test_a_real_difference_is_found_and_has_the_right_sign() -> None:
    draws = torch.Generator().manual_seed(5)
    text = topical(draws)
    # Far smaller than the spread of the text, which the pairing takes out.
    better = text - 0.05 + 0.05 * (topical(draws) - 2)
    config = BootstrapConfig()
    found = paired(better, text, blocks(), config)
    assert found.p_value == pytest.approx(1 / 10_001)
    assert found.difference == pytest.approx((better - text).mean().item())
    assert found.interval is not None
    assert found.interval.low < found.difference < found.interval.high < 0
    back = paired(text, better, blocks(), config)
    assert back.difference == -found.difference
    assert back.p_value == found.p_value
    same = paired(text, text, blocks(), config)
    assert (same.difference, same.p_value) == (0, 1)


def test_the_sign_flips_are_those_of_all_signs() -> None:
    sums = torch.tensor([0.5, -0.2, 0.9, 0.4, -0.1, 0.7], dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6)
    wanted = ((signs @ sums).abs() >= sums.sum().abs() - 1e-12).double().mean().item()
    found = bootstrap._sign_flips(sums, BootstrapConfig(resamples=20_000))
    assert found == pytest.approx(wanted, abs=0.01)


def test_a_stream_is_cut_into_stretches(tmp_path: Path) -> None:
    for n, number, length in ((20_001, 200, 100), (20_002, 199, 101), (1001, 20, 50)):
        found = blocks_of(text_of(tmp_path, n))
        assert (len(found.ends), int(found.ends[-1])) == (number, n - 1)
        assert found.what == f"{number} blocks of {length} tokens"
        assert found.enough
        assert int(found.sizes.sum()) == n - 1
        assert set(found.sizes[:-1].tolist()) == {length}
    few = blocks_of(text_of(tmp_path, 900))
    assert not few.enough
    nats = torch.ones(899, dtype=torch.float64)
    assert interval(nats, few, FEW) is None
    found = paired(nats, 2 * nats, few, FEW)
    assert (found.difference, found.interval, found.p_value) == (-1, None, None)


def test_units_are_resampled_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Token 0 is context; the token that ends a unit is the last target of it.
    ends = [0, 3, 10, *range(20, 400, 5), 399]
    found = blocks_of(text_of(tmp_path, 401, units=ends))
    assert found.ends.tolist() == [*ends[1:], 400]
    assert found.what == f"{len(ends)} documents"
    nats = torch.arange(400, dtype=torch.float64)
    assert found.sums(nats)[:2].tolist() == [0 + 1 + 2, sum(range(3, 10))]
    monkeypatch.setattr(bootstrap, "MOST", 30)
    merged = blocks_of(text_of(tmp_path, 401, units=ends))
    assert merged.what == f"{len(ends)} documents by 3"
    assert merged.ends.tolist() == [*[*ends[1:], 400][2:-1:3], 400]
    few = blocks_of(text_of(tmp_path, 2001, units=[500, 2000]))
    assert few.what == "40 blocks of 50 tokens"


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"resamples": 99}, "bootstrap.resamples must be >= 100, got 99"),
        ({"level": 1.0}, r"bootstrap.level must be a number in \[0, 1\), got 1.0"),
        ({"level": 0.0}, "bootstrap.level must be a finite number > 0, got 0.0"),
        ({"seed": -1}, "bootstrap.seed must be >= 0, got -1"),
    ],
)
def test_ranges(fields: dict[str, float], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        BootstrapConfig(**fields)
