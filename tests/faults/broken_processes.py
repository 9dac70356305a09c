"""Builds of `lm` whose processes lack a defence that they have when they train together."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch  # noqa: PT013

from lm.commands.start import Start
from lm.run_directory import RunDirectory
from lm.runtime.processes import Processes
from lm.training import step
from lm.training.exchange import Exchange
from lm.training.loop import Trainer
from lm.training.signals import StopFlag


def without_exchanging_gradients(patch: MonkeyPatch) -> None:
    def close(self: Exchange, numbers: torch.Tensor) -> None:
        self._processes.add_up(numbers)

    patch.setattr(Exchange, "_send", lambda self, parameter: None)
    patch.setattr(Exchange, "close", close)


def without_the_others_streams(patch: MonkeyPatch) -> None:
    def gather(self: Processes, own: torch.Tensor, count: int) -> torch.Tensor:
        whole = own.new_zeros(count, *own.shape[1:])
        whole[self.share(count)] = own
        return whole

    patch.setattr(Processes, "gather", gather)


def with_masks_of_local_streams(patch: MonkeyPatch) -> None:
    patch.setattr(step, "_shifted", lambda streams, by: streams)


def without_agreeing_to_stop(patch: MonkeyPatch) -> None:
    def agree(self: StopFlag, *values: float) -> list[float]:
        self._agreed = self._signal
        return list(values)

    patch.setattr(StopFlag, "agree", agree)


def without_names_of_the_attempt(patch: MonkeyPatch) -> None:
    patch.setattr("lm.runtime.joining.secrets.token_hex", lambda size: "the same")


def without_comparing_weights(patch: MonkeyPatch) -> None:
    patch.setattr(Trainer, "check_alike", lambda self: None)


def with_a_directory_for_each_process(patch: MonkeyPatch) -> None:
    whole = Start.create_directory

    def create_directory(self: Start, held: Any) -> RunDirectory:
        RunDirectory.create(Path(self.config.runs) / self.config.name)
        return whole(self, held)

    patch.setattr(Start, "create_directory", create_directory)


def without_an_end_of_patience(patch: MonkeyPatch) -> None:
    patch.setattr("lm.runtime.processes.timedelta", lambda seconds: timedelta(hours=1))


def without_noticing_the_end_of_the_agent(patch: MonkeyPatch) -> None:
    patch.setattr("lm.runtime.joining.os.kill", lambda pid, number: None)
