"""`lm train`: data → model → optimiser → fit → exact test."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from lm.commands import count
from lm.commands.account import announce, finish, standing
from lm.commands.assembly import assemble
from lm.commands.begin import begin
from lm.commands.start import Start
from lm.commands.together import check_alone, check_processes, identity_numbers, traced
from lm.config import Invocation, TrainConfig, invocation
from lm.errors import CheckpointError
from lm.models import NgramConfig
from lm.run_directory import RunDirectory
from lm.runtime.device import machine
from lm.training.loop import Trainer
from lm.training.signals import StopFlag
from lm.training.snapshot import restore


def run(config: TrainConfig) -> float | None:
    """Train as configured; the best validation loss, for sweepers that minimise it."""
    if isinstance(config.model, NgramConfig):
        check_alone(invocation(), "model=ngram is counted by one process")
        return count.run(config)
    return train(config).progress.best_loss


def train(config: TrainConfig, stop: StopFlag | None = None) -> Trainer:
    """Train as configured, to the end and tested.

    Of several processes each does so with its own streams; the first one writes and speaks.

    Args:
        stop: what may ask the run to stop; None is a signal.
    """
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    processes = call.processes
    check_processes(config, processes)
    processes.be_patient(config.runtime.timeout_seconds)
    stop = stop or StopFlag()
    with ExitStack() as held:
        held.enter_context(processes.saying_why())
        held.enter_context(stop.listening())
        with processes.in_turn():
            start, trainer = prepared_run(config, call, held, stop)
        directory = trainer.directory
        if processes.first:
            held.enter_context(directory.summarised(partial(standing, trainer)))
            if start.resumed is None:
                facts = {**machine(start.compute.device), **processes.describe()}
                directory.describe(start.run_text, list(call.overrides), facts)
        held.enter_context(processes.with_reasons())
        held.enter_context(processes.connected(start.compute.device))
        processes.check_same(identity_numbers(trainer), "data or models")
        with trainer.logs(start.resumed), stop.deferring():
            trainer.writer.begin(start.hyper_parameters(), call.given, call.swept)
            announce(trainer, start, call.overrides)
            with traced(trainer, start):
                reason = trainer.fit()
            if processes.first:
                finish(trainer, start, reason)
    return trainer


def prepared_run(
    config: TrainConfig, call: Invocation, held: ExitStack, stop: StopFlag
) -> tuple[Start, Trainer]:
    """What the run begins with, and the run as it stands; nothing is refused after this."""
    RunDirectory.check_place(Path(config.runs))
    start = begin(config, call, held)
    if isinstance(start.config.model, NgramConfig):
        raise CheckpointError(
            f"{config.resume or config.init_from} was counted, not trained by gradient: it"
            " cannot go on",
            "Count another text with lm train model=ngram.",
        )
    trainer = assemble(start, held, stop)
    if call.processes.first:
        held.enter_context(trainer.directory.logging())
    if start.resumed is not None:  # what is refused leaves the summary as it was
        restore(trainer, start.resumed)
    return start, trainer
