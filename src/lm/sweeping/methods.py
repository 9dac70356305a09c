"""How trials are chosen and ended early, and what that is in Optuna's terms."""

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from lm.sweeping.space import Parameter

if TYPE_CHECKING:
    import optuna

# A sampler and a pruner begin to judge when so many trials have shown how they go.
_TRIALS_TO_SAMPLE_BY = 5
_TRIALS_TO_PRUNE_BY = 3
# The first validation says how fast a trial begins, not how far it comes.
_FIRST_TO_PRUNE_AT = 2


class Sampler(Enum):
    """How a trial is chosen: by a tree-structured Parzen estimator of the others, at random, or
    each combination in turn."""

    tpe = "tpe"
    random = "random"
    grid = "grid"


class Pruner(Enum):
    """Which trials end early: those behind the median at the same validation, or by Hyperband."""

    median = "median"
    hyperband = "hyperband"


def sampler_of(kind: Sampler, seed: int, number: int) -> "optuna.samplers.BaseSampler":
    """What chooses the trial of that number: its draws depend on nothing but these two."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind is not Sampler.tpe:
        return RandomSampler(seed)
    return TPESampler(n_startup_trials=_TRIALS_TO_SAMPLE_BY, constant_liar=True, seed=seed)


def distribution(parameter: Parameter) -> "optuna.distributions.BaseDistribution":
    """What may be chosen for a parameter."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    low, high, log = parameter.low, parameter.last, parameter.log
    assert low is not None
    if isinstance(low, int):
        return IntDistribution(low, int(high), log=log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=log, step=parameter.step)


def pruner_of(kind: Pruner | None) -> "optuna.pruners.BasePruner":
    """What ends trials early; None lets all come to their end."""
    from optuna import pruners

    if kind is Pruner.median:
        return pruners.MedianPruner(
            n_startup_trials=_TRIALS_TO_PRUNE_BY, n_warmup_steps=_FIRST_TO_PRUNE_AT
        )
    if kind is Pruner.hyperband:
        return pruners.HyperbandPruner(min_resource=1)
    return pruners.NopPruner()
