"""The root schemas of verbs that train: what `lm train` can be told, and what others add to it."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath

from omegaconf import MISSING

from lm import checks
from lm.data.corpus import DataConfig
from lm.data.tokenizers import TokenizerConfig
from lm.errors import ConfigError
from lm.models import ModelConfig, NgramConfig
from lm.optim.base import OptimConfig
from lm.optim.schedule_base import ScheduleConfig
from lm.runtime.device import RuntimeConfig
from lm.training import TrainerConfig


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """`lm train`.

    Attributes:
        seed: of every random draw of the run.
        name: the run's experiment; its directory is `<runs>/<name>/<date>_<time>_<id>/`.
        runs: the folder of all runs.
        resume: a run to continue exactly as it was configured; of a folder of runs, such as
            `runs/<name>`, the newest.
        init_from: a run (or folder of runs) or checkpoint whose weights and tokenizer a new run
            starts from.
        freeze: name prefixes of parameters that are not trained, such as `embedding`.
        lr_scales: name prefix → factor on the learning rate of the parameters below it.
        extend_vocabulary: with `init_from`, add the words of the new corpus to its vocabulary.
        model: the cell with its sizes, connections, head and regularisers.
        data: the corpus.
        tokenizer: how its text becomes tokens; `init_from` brings its own.
        optim: the optimiser.
        schedule: the learning rate's course.
        trainer: streams and windows, limits, validation, saving and logging.
    """

    seed: int = 1
    name: str = "default"
    runs: str = "runs"
    resume: str | None = None
    init_from: str | None = None
    freeze: list[str] = field(default_factory=list)
    lr_scales: dict[str, float] = field(default_factory=dict)
    extend_vocabulary: bool = False
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    optim: OptimConfig = MISSING
    schedule: ScheduleConfig = MISSING
    trainer: TrainerConfig = MISSING
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        checks.at_least("seed", self.seed, 0)
        check_name(self.name)
        for prefix, scale in self.lr_scales.items():
            checks.non_negative(f"lr_scales.{prefix}", scale)
        if self.trainer.max_seconds is not None and self.schedule.needs_horizon:
            raise ConfigError(
                f"trainer.max_seconds={self.trainer.max_seconds:g} gives the run no length in"
                " steps, which this schedule needs",
                "Set schedule=constant or plateau, or limit the run by steps, epochs or tokens.",
            )
        if self.extend_vocabulary and self.init_from is None and self.resume is None:
            raise ConfigError(
                "extend_vocabulary=true needs a vocabulary to extend",
                "Set init_from=<run or checkpoint>.",
            )


@dataclass(kw_only=True, slots=True)
class ReproduceConfig(TrainConfig):
    """`lm reproduce`: a row's recipe, and whatever `lm train` could be told about it.

    Attributes:
        row: the published result; the command line takes it as NAME.
        record: a folder that the records go to, besides the run's own directory.
        fresh: train anew, although a run of this recipe is there.
        changed_data: run on other data than the published ones; no reproduction then.
    """

    row: str = MISSING
    record: str | None = None
    fresh: bool = False
    changed_data: bool = False

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        if self.resume is not None:
            raise ConfigError(
                f"resume={self.resume}: lm reproduce finds the run to continue by itself",
                "Drop it, or continue that run with lm train.",
            )
        if not self.trainer.test:
            raise ConfigError(
                "trainer.test=false leaves nothing to compare with the published test value",
                "Drop the override.",
            )


class Interruption(Enum):
    """How a run ends before its end: stopped by a signal and saved, or killed."""

    stop = "stop"
    kill = "kill"


@dataclass(kw_only=True, slots=True)
class VerifyResumeConfig(TrainConfig):
    """`lm verify-resume`: a configuration of `lm train`, and how to interrupt it.

    The run has `steps` steps instead of the configuration's own limits, and so has the horizon of
    its schedule. What it writes goes below `runs` and is removed, unless a difference is found.

    Attributes:
        steps: of the uninterrupted run, and of the interrupted one with its continuation.
        at: the step after which it is interrupted; None is half of the steps.
        interruption: `stop` as by a signal, or `kill -9` once a further step has begun.
    """

    steps: int = 20
    at: int | None = None
    interruption: Interruption = Interruption.stop

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        checks.at_least("steps", self.steps, 2)
        if not 1 <= self.interrupted_at < self.steps:
            raise ConfigError(
                f"at must be from 1 to {self.steps - 1} with steps={self.steps}, got {self.at}",
                "Leave it out for half of the steps.",
            )
        if self.resume is not None:
            raise ConfigError(
                f"resume={self.resume}: lm verify-resume takes a configuration and makes its own"
                " runs of it",
                "Drop it, and give the overrides that the run was made with.",
            )
        if isinstance(self.model, NgramConfig):
            raise ConfigError(
                "model=ngram is counted, not trained by steps: it has nothing to resume",
                "Choose another model=.",
            )

    @property
    def interrupted_at(self) -> int:
        """The step after which the run is interrupted."""
        return self.steps // 2 if self.at is None else self.at


def check_name(name: str) -> None:
    """Refuse an experiment's name that is no folder inside `runs`."""
    path = PurePath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"name must be a folder name inside runs, got {name!r}", "Set name=<experiment>."
        )
