"""Builds that lack one safeguard: the row that guards it must report failures."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fault_plan import carry_out
from rows import ROWS

from lm import checkpoint
from lm.optim import outliers
from lm.optim.guard import Guard
from lm.optim.optimizers import OPTIMIZERS
from lm.runtime import files
from lm.training import snapshot, step

Break = Callable[[pytest.MonkeyPatch], None]


class Broken(NamedTuple):
    """A build without a safeguard.

    Attributes:
        row: the row that must fail.
        times: repetitions that suffice for that.
    """

    what: str
    row: str
    times: int
    apply: Break


def without_the_recurrent_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshot, "_recurrent_state", lambda model, tensors: None)


def without_fsync(patch: pytest.MonkeyPatch) -> None:
    for module in (files, checkpoint):
        patch.setattr(module, "sync", lambda path: None)


def without_the_rename(patch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, content: checkpoint.Checkpoint) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in (("state.json", "{}"), ("config.yaml", content.config)):
            (folder / name).write_text(text)
            files.sync(folder / name)
        whole(folder, content)

    whole = checkpoint.write
    patch.setattr(checkpoint, "write", write)


def without_the_manifest_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "verify", lambda folder: None)


def without_looking_at_what_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "verifies", lambda folder: True)


def without_looking_at_the_weights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "_finite", lambda tensor: True)


def without_skipping(patch: pytest.MonkeyPatch) -> None:
    whole = Guard.step

    def always(self: Guard, skip: torch.Tensor, coefficient: Any = None) -> None:
        whole(self, torch.zeros_like(skip), coefficient)

    patch.setattr(Guard, "step", always)


def without_keeping_the_state_finite(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step.TrainStep, "_keep_finite", lambda self, bad, old, new: new)


def without_a_largest_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "LARGEST_UNCLIPPED", float("inf"))


def with_a_poisoned_statistic(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outliers, "_REACH_FACTOR", float("inf"))


BROKEN = [
    Broken("the recurrent state is not resumed", "R1", 2, without_the_recurrent_state),
    Broken("nothing is synced", "C5", 1, without_fsync),
    Broken("a checkpoint is written in place", "C5", 1, without_the_rename),
    Broken("the manifest is not checked", "C1", 20, without_the_manifest_check),
    Broken("damaged checkpoints count as kept", "C6", 40, without_looking_at_what_is_kept),
    Broken("weights are not looked at", "C8", 3, without_looking_at_the_weights),
    Broken("bad steps are not skipped", "N1", 2, without_skipping),
    Broken("a bad step's state is carried on", "N1", 2, without_keeping_the_state_finite),
    Broken("gradients may be of any size", "N3", 2 * len(OPTIMIZERS), without_a_largest_gradient),
    Broken("a spike enters the statistic as it is", "N4", 2, with_a_poisoned_statistic),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.what)
def test_a_broken_build_is_noticed(
    broken: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.apply(monkeypatch)
    assert carry_out(ROWS[broken.row], tmp_path, broken.times).failures
