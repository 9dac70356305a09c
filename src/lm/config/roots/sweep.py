"""The root schema of `lm sweep`."""

import re
from dataclasses import dataclass, field
from enum import Enum

from lm import checks
from lm.config.roots.training import TrainConfig
from lm.errors import ConfigError
from lm.sweeping.methods import Pruner, Sampler
from lm.sweeping.space import Parameter

# They say which run it is, not how it trains.
_NOT_SEARCHED = ("name", "runs", "resume")


class Metric(Enum):
    """What is minimised on the validation split; bits per byte also between tokenizers."""

    loss = "loss"
    bits_per_byte = "bits_per_byte"


@dataclass(kw_only=True, slots=True)
class SweepConfig(TrainConfig):
    """`lm sweep`: a configuration of `lm train`, and what is searched around it.

    Trials and results go to `<runs>/<name>/sweep/`; the same command goes on where it was.

    Attributes:
        space: field or group → what may be chosen for it, `{low, high}` with `log` or `step`, or
            `{choices}`; `sweep=` chooses a file that says it, and on the command line
            `field=interval(a,b)`, `field=range(a,b,step)`, `field=a,b,c` or
            `field=tag(log,interval(a,b))` add to it.
        trials: of the study, those done before included; the first is the configuration itself.
            None is 20, or all of a grid.
        seconds: after which no further trial begins; None is off.
        workers: trials side by side, each with its part of the cores and a GPU of its own where
            there are several.
        sampler: how a trial is chosen: by a tree-structured Parzen estimator (Bergstra et al. 2011)
            of the others, at random, or every combination in turn; `seed` decides.
        pruner: which trials end early, by their validations: those behind the median, or by
            Hyperband (Li et al. 2018); None is off.
        metric: what is minimised; each trial counts with the best of its validations.
        storage: a database as SQLAlchemy's URL, in which several `lm sweep` of one `name` may share
            a study; None is a SQLite file in the sweep's folder.
        save_as: write the best trial to `configs/experiment/<save_as>.yaml`, too.
    """

    space: dict[str, Parameter] = field(default_factory=dict)
    trials: int | None = None
    seconds: float | None = None
    workers: int = 1
    sampler: Sampler = Sampler.tpe
    pruner: Pruner | None = Pruner.median
    metric: Metric = Metric.loss
    storage: str | None = None
    save_as: str | None = None

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        checks.at_least("trials", self.trials, 1)
        checks.positive("seconds", self.seconds)
        checks.at_least("workers", self.workers, 1)
        checks.at_most("workers", self.workers, 1 << 10)
        if self.resume is not None:
            raise ConfigError(
                f"resume={self.resume}: lm sweep finds what is to be continued by itself",
                "Drop it: the same command goes on.",
            )
        if self.save_as is not None and not re.fullmatch(r"\w[\w.-]*", self.save_as):
            raise ConfigError(
                f"save_as must be the name of an experiment, got {self.save_as!r}",
                "Set save_as=<letters, digits and _>.",
            )
        self._check_space()

    def _check_space(self) -> None:
        if not self.space:
            raise ConfigError(
                "space is empty: there is nothing to search",
                "Choose a file of ranges with sweep=<option>, or give some:"
                " 'optim.lr=tag(log,interval(0.001,0.1))'.",
            )
        for name, parameter in self.space.items():
            if name in _NOT_SEARCHED:
                raise ConfigError(f"space: {name} makes no model better", "Take it out.")
            if name.partition(".")[0] in ("tokenizer", "data") and self.metric is Metric.loss:
                raise ConfigError(
                    f"space: losses per token do not compare where {name} differs",
                    "Set metric=bits_per_byte.",
                )
            parameter.check(name)
