"""How sure a number is: bootstrap intervals, paired tests and standard errors over blocks of text.

Neighbouring tokens are hard or easy together, so that whole blocks are resampled, not tokens
(Künsch 1989; for documents: Koehn 2004): the documents or lines where the state is reset by them
and there are enough, else contiguous stretches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm import checks
from lm.data.corpus import Unit
from lm.evaluation.text import Text
from lm.metrics.perplexity import exp
from lm.runtime.randomness import generator

NUM_BLOCKS = 200
# A stretch shorter than a few sentences is not independent of its neighbours.
SHORTEST = 50
# With fewer blocks an interval would say more than they know.
FEWEST = 20
MOST = 4096
# Draws of one go.
_ELEMENTS = 1 << 22


@dataclass(kw_only=True, slots=True)
class BootstrapConfig:
    """Resampling.

    Attributes:
        resamples: of the blocks, for intervals and tests.
        level: of the intervals.
        seed: of the draws.
    """

    resamples: int = 10_000
    level: float = 0.95
    seed: int = 1

    def __post_init__(self) -> None:
        checks.at_least("bootstrap.resamples", self.resamples, 100)
        checks.at_most("bootstrap.resamples", self.resamples, checks.MOST_HELD)
        checks.positive("bootstrap.level", self.level)
        checks.fraction("bootstrap.level", self.level)
        checks.at_least("bootstrap.seed", self.seed, 0)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A text in stretches that are resampled whole.

    Attributes:
        ends: of each block, in targets; the last is their number.
        what: how many of what.
    """

    ends: Int[Tensor, " K"]
    what: str

    @property
    def sizes(self) -> Int[Tensor, " K"]:
        """Targets of each."""
        return self.ends.diff(prepend=self.ends.new_zeros(1))

    @property
    def enough(self) -> bool:
        """Whether there are enough to say anything."""
        return len(self.ends) >= FEWEST

    def sums(self, nats: Float[Tensor, " N"]) -> Float[Tensor, " K"]:
        """Nats of each block."""
        assert len(nats) == self.ends[-1], (len(nats), self.ends[-1])
        parts = torch.split(nats.double(), self.sizes.tolist())
        return torch.stack([part.sum() for part in parts])


def blocks_of(text: Text) -> Blocks:
    """The blocks of a whole split."""
    num_targets = len(text.store) - 1
    if text.unit is not Unit.stream:
        units = _units(text, num_targets)
        if units is not None:
            return units
    length = max(SHORTEST, -(-num_targets // NUM_BLOCKS))
    ends = torch.arange(length, num_targets + length, length).clamp(max=num_targets)
    return Blocks(ends, f"{len(ends):,} blocks of {length:,} tokens")


def _units(text: Text, num_targets: int) -> Blocks | None:
    """Documents or lines, several to a block where there are very many; None if too few."""
    # The token at position e ends a unit, and is target number e − 1.
    ends = torch.from_numpy(text.store.unit_ends(1, num_targets))
    ends = torch.cat([ends, ends.new_tensor([num_targets])])
    if len(ends) < FEWEST:
        return None
    several = -(-len(ends) // MOST)
    what = f"{len(ends):,} {text.unit.name}s"
    if several == 1:
        return Blocks(ends, what)
    return Blocks(torch.cat([ends[several - 1 : -1 : several], ends[-1:]]), f"{what} by {several}")


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval of nats per token."""

    low: float
    high: float

    @property
    def perplexity(self) -> tuple[float, float]:
        """The same of the perplexity, which is the exponential."""
        return exp(self.low), exp(self.high)


def interval(nats: Float[Tensor, " N"], blocks: Blocks, config: BootstrapConfig) -> Interval | None:
    """Of the mean nats per token (Efron 1979, percentiles); None with too few blocks."""
    if not blocks.enough:
        return None
    means = torch.cat(
        [
            sums.sum(1) / sizes.sum(1)
            for sums, sizes in _resampled(blocks.sums(nats), blocks.sizes.double(), config)
        ]
    )
    tail = (1 - config.level) / 2
    low, high = means.quantile(means.new_tensor([tail, 1 - tail])).tolist()
    return Interval(low, high)


def standard_error(values: Float[Tensor, " N"], blocks: Blocks) -> float | None:
    """Of the mean of all values, each block being one observation; None with too few blocks.

    The mean is a ratio, Σ sums / Σ sizes, since blocks differ in size; with K blocks its variance
    is K/(K−1) · Σ (sum − mean · size)² / N² (Cochran 1977, Sampling Techniques, equation 6.13).
    """
    if not blocks.enough:
        return None
    sums, sizes = blocks.sums(values), blocks.sizes.double()
    num_blocks = len(sums)
    deviations = sums - sums.sum() / sizes.sum() * sizes
    variance = num_blocks / (num_blocks - 1) * deviations.square().sum() / sizes.sum() ** 2
    return variance.sqrt().item()


@dataclass(frozen=True, slots=True)
class Paired:
    """How two predictions of the same tokens differ.

    Attributes:
        difference: nats per token of the first minus those of the second; below 0 the first
            is better.
        interval: of the difference; None with too few blocks.
        p_value: two-sided, of no difference; None with too few blocks.
    """

    difference: float
    interval: Interval | None
    p_value: float | None


def paired(
    first: Float[Tensor, " N"],
    second: Float[Tensor, " N"],
    blocks: Blocks,
    config: BootstrapConfig,
) -> Paired:
    """Compare two predictions of the same tokens, block by block.

    The test flips the sign of each block's difference at random (Fisher 1935): if nothing
    distinguishes the two, one sign is as likely as the other.
    """
    differences = first - second
    return Paired(
        difference=differences.mean().item(),
        interval=interval(differences, blocks, config),
        p_value=_sign_flips(blocks.sums(differences), config) if blocks.enough else None,
    )


def _sign_flips(sums: Float[Tensor, " K"], config: BootstrapConfig) -> float:
    draws = generator(config.seed, 0, "sign flips")
    observed = sums.sum().abs()
    # What differs by rounding alone is as extreme.
    least = observed * (1 - 1e-9)
    extreme = 0
    for rows in _rows(config.resamples, len(sums)):
        signs = torch.randint(2, (rows, len(sums)), generator=draws, dtype=torch.float64) * 2 - 1
        extreme += int(((signs @ sums).abs() >= least).sum())
    return (1 + extreme) / (1 + config.resamples)


def _resampled(
    sums: Float[Tensor, " K"], sizes: Float[Tensor, " K"], config: BootstrapConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Nats and targets of the blocks drawn, for some resamples at a time."""
    draws = generator(config.seed, 0, "bootstrap")
    for rows in _rows(config.resamples, len(sums)):
        drawn = torch.randint(len(sums), (rows, len(sums)), generator=draws)
        yield sums[drawn], sizes[drawn]


def _rows(total: int, width: int) -> Iterator[int]:
    """`total` as a sum of numbers of rows that fit."""
    most = max(1, _ELEMENTS // width)
    for done in range(0, total, most):
        yield min(most, total - done)
