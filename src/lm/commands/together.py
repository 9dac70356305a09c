"""What several processes that train one run have to agree upon before they begin."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from lm.commands.start import Start
from lm.config import Invocation, TrainConfig
from lm.errors import ConfigError
from lm.optim.optimizers import AdafactorConfig
from lm.runtime.processes import Processes
from lm.training.loop import Trainer


def check_alone(call: Invocation | None, why: str) -> None:
    """Refuse several processes.

    Raises:
        ConfigError: saying why.
    """
    if call is not None and not call.processes.alone:
        raise ConfigError(
            f"{why}, there are {call.processes.size}", "Drop runtime.processes, or torchrun."
        )


def check_processes(config: TrainConfig, processes: Processes) -> None:
    """Refuse what cannot be split, before any work.

    Raises:
        ConfigError: naming the field.
    """
    size = processes.size
    if processes.alone and config.runtime.processes > 1:
        raise ConfigError(
            f"runtime.processes={config.runtime.processes}: only lm train starts several processes",
            "Drop it here.",
        )
    if config.runtime.processes not in (1, size):
        raise ConfigError(
            f"runtime.processes={config.runtime.processes}, but torchrun started {size}",
            "Drop runtime.processes: torchrun says how many.",
        )


def check_split(config: TrainConfig) -> None:
    """Refuse what needs all words at once, or one process to do what takes all of them.

    Raises:
        ConfigError: naming the field.
    """
    refused = {
        "trainer.clip.adaptive": config.trainer.clip.adaptive is not None,
        "trainer.communication.local_steps": config.trainer.communication.local_steps > 1,
        "trainer.save_in_background": config.trainer.save_in_background,
        "extend_vocabulary": config.extend_vocabulary,
        "trainer.inspect_every": config.trainer.inspect_every is not None,
        "optim=adafactor": isinstance(config.optim, AdafactorConfig),
    }
    for name, given in refused.items():
        if given:
            raise ConfigError(
                f"runtime.split_vocabulary=true does not go with {name}", f"Drop {name}."
            )


def check_streams(config: TrainConfig, processes: Processes) -> None:
    """Each process needs a stream for each of its passes.

    Raises:
        ConfigError: there are too few.
    """
    batch, passes = config.trainer.batch_size, config.trainer.accumulate
    if batch < processes.size * passes:
        raise ConfigError(
            f"trainer.batch_size={batch} streams cannot be split over {processes.size} processes"
            f"{f' and trainer.accumulate={passes} passes' if passes > 1 else ''}",
            "Raise trainer.batch_size, or take fewer processes.",
        )


def identity_numbers(trainer: Trainer) -> list[int]:
    """What has to be the same for all processes of a run, as a number."""
    identity = {k: v for k, v in trainer.identity.items() if k != "machine"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
    return [int.from_bytes(digest[:8], "big", signed=True)]


@contextmanager
def traced(trainer: Trainer, start: Start) -> Iterator[None]:
    """Record a trace of what the first process does, if one is asked for."""
    if not trainer.processes.first:
        yield
        return
    with start.config.runtime.profiled(trainer.directory.path / "trace.json"):
        yield
