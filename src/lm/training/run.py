"""A run in memory: its parts, where it stands, and the logs it writes."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lm.checkpoint import Checkpoint
from lm.data.store import TokenStore
from lm.data.streams import Streams
from lm.data.tokenizers import Tokenizer
from lm.metrics.writer import MetricsWriter, SilentWriter
from lm.models import RecurrentModel
from lm.models.base import State
from lm.optim.averaging import Averages
from lm.optim.base import Optimizers
from lm.optim.outliers import Outliers
from lm.optim.schedule_base import Schedule
from lm.run_directory import RunDirectory
from lm.runtime.processes import ALONE, Processes
from lm.training.config import TrainerConfig
from lm.training.console import Console
from lm.training.exchange import Exchange
from lm.training.graphed import GraphedStep, graphed_where_possible
from lm.training.local_steps import LocalSteps
from lm.training.progress import Limits, Progress
from lm.training.saver import Saver
from lm.training.signals import StopFlag
from lm.training.statistics import Statistics
from lm.training.step import TrainStep
from lm.training.windows import Windows


@dataclass(slots=True)
class Run:
    """What the loop works on and a checkpoint captures.

    Attributes:
        config_text: the configuration as the checkpoint keeps it.
        identity: what else a checkpoint says of the run: machine, data fingerprints.
        processes: that train it together; the streams are split over them.
        state: the recurrent state of our own streams that enters the next window; None at the
            start of an epoch.
    """

    config: TrainerConfig
    seed: int
    tokenizer: Tokenizer
    prompt: str
    model: RecurrentModel
    optimizers: Optimizers
    schedule: Schedule
    streams: Streams
    windows: Windows
    valid: TokenStore
    test: TokenStore
    limits: Limits
    directory: RunDirectory
    config_text: str
    identity: dict[str, object]
    stop: StopFlag
    processes: Processes = ALONE
    statistics: Statistics = field(init=False)
    averages: Averages = field(init=False)
    outliers: Outliers = field(init=False)
    exchange: Exchange = field(init=False)
    local: LocalSteps = field(init=False)
    come_together: Callable[[], None] = field(init=False)
    train_step: TrainStep | GraphedStep = field(init=False)
    saver: Saver = field(init=False)
    writer: MetricsWriter = field(init=False)
    console: Console = field(init=False)
    progress: Progress = field(default_factory=Progress)
    state: State | None = None

    def __post_init__(self) -> None:
        self.statistics = Statistics(self.model.device)
        step = TrainStep(
            self.model,
            self.optimizers,
            self.statistics,
            clip=self.config.clip,
            averaging=self.config.averaging,
            num_streams=self.config.batch_size,
            passes=self.config.accumulate,
            seed=self.seed,
            processes=self.processes,
            communication=self.config.communication,
        )
        self.exchange, self.local = step.exchange, step.local
        self.come_together = step.come_together
        self.averages, self.outliers = step.averages, step.outliers
        self.train_step = graphed_where_possible(step)
        self.saver = Saver(
            self.directory.checkpoints,
            keep=self.config.keep,
            background=self.config.save_in_background,
        )

    @property
    def epochs_done(self) -> float:
        """Passes over the training split, the current one as a fraction."""
        return self.progress.epoch + self.progress.position / self.streams.length

    @property
    def continuation(self) -> str:
        """The command that continues the run."""
        together = [] if self.processes.alone else [f"runtime.processes={self.processes.size}"]
        path = shlex.quote(str(self.directory.path))
        return " ".join([f"lm train resume={path}", *together])

    @contextmanager
    def logs(self, resumed: Checkpoint | None) -> Iterator[None]:
        """Start the metrics files and the bar, or continue them from a checkpoint."""
        progress, at = self.progress, None
        if resumed is not None:
            at = (progress.step, progress.tokens, int(resumed.state["metrics_bytes"]))
        speaks = self.processes.first
        self.writer = (
            MetricsWriter(self.directory.path, tokens_axis=self.config.tokens_axis, resume=at)
            if speaks
            else SilentWriter()
        )
        bar = self.config.bar and speaks
        self.console = Console(progress, self.limits.total_tokens, bar=bar)
        try:
            with self.saver.finishing():
                yield
        finally:
            self.console.close()
            self.writer.close()
