"""A tiny but complete run, built from the real parts, that a test can stop and resume."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import Prepared, prepare
from lm.data.streams import Streams
from lm.data.tokenizers import TOKENIZERS
from lm.errors import Stopped
from lm.models import CELLS
from lm.optim import OPTIMIZERS, SCHEDULES, ScheduleConfig
from lm.optim.base import OptimConfig
from lm.optim.clipping import ClipConfig
from lm.run_directory import RunDirectory
from lm.runtime.choices import Choices
from lm.runtime.compute import Compute, Kernels, Precision
from lm.runtime.device import machine
from lm.runtime.processes import ALONE, Processes
from lm.training import TrainerConfig
from lm.training.loop import Trainer
from lm.training.progress import Limits
from lm.training.signals import StopFlag
from lm.training.snapshot import capture, restore
from lm.training.windows import Windows

TEXT = "the cat sat on the mat; the dog sat on the log. a cat and a dog met the rat.\n"
CPU = torch.device("cpu")


class StopAfter(StopFlag):
    """Asks to stop once the run has done a given step, as a signal would."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step = step
        self.trainer: Trainer | None = None

    @property
    def requested(self) -> str | None:
        reached = self.trainer is not None and self.trainer.progress.step == self.step
        return "SIGTERM" if reached else None


@dataclass
class Recipe:
    """What a run is made of."""

    folder: Path
    cell: str = "lstm"
    optim: OptimConfig = field(default_factory=lambda: OPTIMIZERS["sgd"](lr=1.0, momentum=0.5))
    schedule: ScheduleConfig = field(
        # An improvement this large never comes, so that every validation anneals.
        default_factory=lambda: SCHEDULES["plateau"](factor=1.5, min_delta=5.0)
    )
    model: dict[str, object] = field(default_factory=dict)
    trainer: dict[str, object] = field(default_factory=dict)
    unit: Unit = Unit.stream
    steps: int = 14
    precision: Precision = Precision.fp32
    kernels: Kernels = Kernels.torch
    split: bool = False

    def prepared(self) -> Prepared:
        path = self.folder / "text.txt"
        if not path.exists():
            path.write_text(TEXT * 7)
        size = path.stat().st_size
        corpus = Corpus(
            "tiny",
            (Document(path, 0, size * 2 // 3),),
            (Document(path, size * 2 // 3, size * 5 // 6),),
            (Document(path, size * 5 // 6),),
        )
        return prepare(corpus, TOKENIZERS["byte"](), self.unit, self.folder / "cache")

    def trainer_config(self) -> TrainerConfig:
        defaults: dict[str, object] = {
            "batch_size": 4, "window": 16, "max_epochs": None, "max_steps": self.steps,
            "valid_every": 3, "valid_streams": 2, "log_every": 4, "sample_tokens": 0, "bar": False,
            "clip": ClipConfig(norm=0.5),
        }  # fmt: skip
        return TrainerConfig(**{**defaults, **self.trainer})

    def build(
        self, name: str, *, stop_after: int | None = None, processes: Processes = ALONE
    ) -> Trainer:
        """A trainer in `<folder>/<name>`, continuing what is there."""
        prepared, config = self.prepared(), self.trainer_config()
        stores = prepared.stores
        streams = Streams.for_training(
            stores["train"], config.batch_size, config.window, self.unit, label="tiny",
            own=processes.share(config.batch_size),
        )  # fmt: skip
        sizes = {"embedding_size": 5, "hidden_size": 6, "num_layers": 2}
        dropout = type(CELLS[self.cell]().dropout)(embedding=0.1, between=0.2, output=0.3)
        model_config = CELLS[self.cell](**{**sizes, "dropout": dropout, **self.model})
        counts = torch.from_numpy(stores["train"].token_counts(256))
        among = processes if self.split else ALONE
        model = model_config.build(256, seed=1, counts=counts, processes=among)
        choices = Choices(self.folder / "measured.json", processes=processes)
        model.compute = Compute(CPU, self.precision, self.kernels, "", choices)
        model.compute.use()
        windows = Windows(streams, config.random_window, 1)
        limits = Limits.of(config, windows)
        stop = StopAfter(stop_after)
        path = self.folder / name
        fresh = not path.exists() and processes.first
        directory = RunDirectory.create(self.folder, path) if fresh else RunDirectory(path)
        trainer = Trainer(
            config=config,
            seed=1,
            tokenizer=prepared.tokenizer,
            prompt="the ",
            model=model,
            optimizers=self.optim.build(dict(model.named_parameters())),
            schedule=self.schedule.build(total_steps=limits.total_steps, epoch_of=windows.epoch_of),
            streams=streams,
            windows=windows,
            valid=stores["valid"],
            test=stores["test"],
            limits=limits,
            directory=directory,
            config_text="",
            identity={
                "machine": {**machine(CPU), "processes": processes.size},
                "data": {name: store.fingerprint for name, store in stores.items()},
            },
            stop=stop,
            processes=processes,
        )
        stop.trainer = trainer
        return trainer

    def run(
        self,
        name: str,
        *,
        stop_after: int | None = None,
        spoil: Callable[[Trainer], None] = lambda trainer: None,
        processes: Processes = ALONE,
    ) -> str:
        """Train in `<folder>/<name>`, continuing what is there, and give the digest at the end."""
        trainer = self.build(name, stop_after=stop_after, processes=processes)
        resumed = None
        if trainer.directory.checkpoints.newest_first():
            resumed = trainer.directory.checkpoints.newest_good()[1]
            trainer.model.compute.resume(resumed.state["compute"], keep_precision=True)
            restore(trainer, resumed)
        spoil(trainer)
        with trainer.logs(resumed):
            try:
                trainer.fit()
            except Stopped:
                assert stop_after is not None
                return f"stopped {digest(trainer)}"
            assert stop_after is None, "the run should have stopped"
            return digest(trainer)


def digest(trainer: Trainer) -> str:
    """SHA-256 over all weights, optimiser, recurrent state, running sums, step and best."""
    checkpoint = capture(trainer)
    whole = hashlib.sha256()
    tensors: dict[str, Tensor] = {**checkpoint.model, **checkpoint.training}
    for name in sorted(tensors):
        whole.update(name.encode())
        whole.update(tensors[name].detach().contiguous().view(torch.uint8).numpy().tobytes()
                     if tensors[name].ndim else str(tensors[name].item()).encode())  # fmt: skip
    state = {**checkpoint.state, "metrics_bytes": 0}
    state["progress"] = {**state["progress"], "seconds": 0}
    whole.update(repr(sorted(state.items())).encode())
    return whole.hexdigest()
