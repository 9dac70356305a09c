"""Builds of `lm` with a defence taken out: a row that stays green under one of them proves nothing.

Rows work in processes of their own, so a build is broken by name in each process (`processes`).
"""

import importlib
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import broken_processes
import torch
from hydra.core.config_store import ConfigStore
from pytest import MonkeyPatch  # noqa: PT013

from lm.checkpoint import Checkpoint
from lm.checkpoint import folder as folders
from lm.checkpoint import format as formats
from lm.config import registry
from lm.optim import outliers
from lm.optim.guard import Guard
from lm.optim.optimizers import OPTIMIZERS
from lm.runtime import files
from lm.training import snapshot, step


@dataclass(frozen=True, slots=True)
class Build:
    """A deliberately broken `lm`.

    Attributes:
        row: the row that has to notice.
        take_out: the defence, in the process at hand.
        only: the cases to do, by a part of their names.
        times: repetitions in which the row has to.
    """

    row: str
    take_out: Callable[[MonkeyPatch], None]
    only: str = ""
    times: int = 2


def without_the_recurrent_state(patch: MonkeyPatch) -> None:
    patch.setattr(snapshot, "_recurrent_state", lambda run, progress, tensors: None)


def without_fsync(patch: MonkeyPatch) -> None:
    for module in (files, formats):
        patch.setattr(module, "sync", lambda path: None)


def without_the_rename(patch: MonkeyPatch) -> None:
    def write(folder: Path, content: Checkpoint) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in (("state.json", "{}"), ("config.yaml", content.config)):
            (folder / name).write_text(text)
            files.sync(folder / name)
        whole(folder, content)

    whole = folders.write
    patch.setattr(folders, "write", write)


def without_the_manifest_check(patch: MonkeyPatch) -> None:
    patch.setattr(formats, "verify", lambda folder: None)


def without_looking_at_what_is_kept(patch: MonkeyPatch) -> None:
    patch.setattr(folders, "verifies", lambda folder: True)


def without_looking_at_the_weights(patch: MonkeyPatch) -> None:
    patch.setattr(formats, "finite", lambda tensor: True)


def without_skipping(patch: MonkeyPatch) -> None:
    whole = Guard.step

    def always(self: Guard, skip: torch.Tensor, coefficient: Any = None) -> None:
        whole(self, torch.zeros_like(skip), coefficient)

    patch.setattr(Guard, "step", always)


def without_keeping_the_state_finite(patch: MonkeyPatch) -> None:
    patch.setattr(step.TrainStep, "_keep_finite", lambda self, bad, old, new: new)


def without_a_largest_gradient(patch: MonkeyPatch) -> None:
    patch.setattr(step, "LARGEST_UNCLIPPED", float("inf"))


def with_a_poisoned_statistic(patch: MonkeyPatch) -> None:
    patch.setattr(outliers, "_REACH_FACTOR", float("inf"))


def with_any_component(patch: MonkeyPatch) -> None:
    def imported(name: str) -> Any:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)

    def schema_named(group: str, name: str) -> type:
        return imported(name)

    patch.setattr("lm.config.saved.schema_named", schema_named)


def with_any_tokenizer(patch: MonkeyPatch) -> None:
    class Imported(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            module, _, attribute = name.rpartition(".")
            return getattr(importlib.import_module(module), attribute)

    patch.setattr("lm.data.tokenizers.registry.LOADERS", Imported())


def with_interpolations(patch: MonkeyPatch) -> None:
    patch.setattr("lm.config.saved._check_scalar", lambda path, value, tag: None)


def with_hydra_running(patch: MonkeyPatch) -> None:
    patch.setattr("lm.config.composition.check_hydra", lambda hydra, overrides: None)


def with_any_value(patch: MonkeyPatch) -> None:
    from lm.training.progress import Progress

    patch.setattr(Progress, "from_json", classmethod(lambda cls, saved: cls(**saved)))


def with_the_newest_by_the_clock(patch: MonkeyPatch) -> None:
    whole = folders.CheckpointFolder.newest_first

    def newest_first(self: folders.CheckpointFolder) -> list[Path]:
        return sorted(whole(self), key=lambda path: path.stat().st_mtime, reverse=True)

    patch.setattr(folders.CheckpointFolder, "newest_first", newest_first)


def without_looking_at_the_ids(patch: MonkeyPatch) -> None:
    patch.setattr("lm.data.store.TokenStore.verify", lambda self, tokenizer, vocab_size: None)


def without_a_lock(patch: MonkeyPatch) -> None:
    patch.setattr("lm.run_directory.owning", lambda lock: nullcontext())


def with_schemas_without_slots(patch: MonkeyPatch) -> None:
    """Classes that take any attribute, and nobody who looks for those that are no fields."""
    store = ConfigStore.instance()
    patch.setattr(store, "repo", deepcopy(store.repo))
    for group in registry.BASES:
        for name in registry.schema_names(group):
            strict = registry.schema_named(group, name)
            assert strict is not None
            loose = dataclass(kw_only=True)(type(strict.__name__, (strict,), {}))
            store.store(group=f"schema/{group}", name=name, node=loose, provider="lm")
            patch.setitem(registry._schemas[group], name, loose)
    patch.setattr("lm.config.composition._added_fields", lambda config: ())


BUILDS: dict[str, Build] = {
    "the recurrent state is not resumed": Build("R1", without_the_recurrent_state, times=2),
    "nothing is synced": Build("C5", without_fsync, times=1),
    "a checkpoint is written in place": Build("C5", without_the_rename, times=1),
    "the manifest is not checked": Build("C1", without_the_manifest_check, times=20),
    "damaged checkpoints count as kept": Build("C6", without_looking_at_what_is_kept, times=40),
    "weights are not looked at": Build("C8", without_looking_at_the_weights, times=3),
    "bad steps are not skipped": Build("N1", without_skipping, times=2),
    "a bad step's state is carried on": Build("N1", without_keeping_the_state_finite, times=2),
    "gradients may be of any size": Build(
        "N3", without_a_largest_gradient, times=2 * len(OPTIMIZERS)
    ),
    "a spike enters the statistic as it is": Build("N4", with_a_poisoned_statistic, times=2),
    "believes a checkpoint without comparing it with its manifest": Build(
        "X1",
        without_the_manifest_check,
        only="hostile metadata in model.safetensors, unsealed, generate",
    ),
    "imports the component that a checkpoint names": Build(
        "X2", with_any_component, only="schemas.model='evil.call'"
    ),
    "imports the tokenizer that a checkpoint names": Build(
        "X2", with_any_tokenizer, only="kind 'evil.call'"
    ),
    "lets a checkpoint's configuration read the environment": Build(
        "X1", with_interpolations, only="runs: ${oc.env:HOME}, sealed, load"
    ),
    "lets YAML files have Hydra run code": Build(
        "X2", with_hydra_running, only="configs/experiment/callback_unpickles.yaml"
    ),
    "has schemas without slots": Build(
        "I1", with_schemas_without_slots, only="a typo, with a plus", times=1
    ),
    "takes counters as a checkpoint has them": Build("X5", with_any_value, times=40),
    "the newest checkpoint is that of the latest date": Build(
        "I6", with_the_newest_by_the_clock, times=1
    ),
    "prepared tokens are not looked at": Build(
        "I1b", without_looking_at_the_ids, only="an id beyond the vocabulary", times=1
    ),
    "a run's directory is not locked": Build("I5", without_a_lock, times=1),
    "gradients are not exchanged": Build(
        "R12", broken_processes.without_exchanging_gradients, times=1
    ),
    "only the first process's streams are saved": Build(
        "R12", broken_processes.without_the_others_streams, times=1
    ),
    "masks are those of a process's own streams": Build(
        "R12", broken_processes.with_masks_of_local_streams, times=1
    ),
    "bad steps of one process are not skipped": Build("N1b", without_skipping, times=2),
    "processes do not agree to stop": Build(
        "S2", broken_processes.without_agreeing_to_stop, times=1
    ),
    "an attempt hears what was said in the one before": Build(
        "R4", broken_processes.without_names_of_the_attempt, times=3
    ),
    "weights of processes are not compared": Build(
        "N5", broken_processes.without_comparing_weights, times=1
    ),
    "each process makes a directory": Build(
        "L1b", broken_processes.with_a_directory_for_each_process, times=1
    ),
    "one that stands still is waited for": Build(
        "S6", broken_processes.without_an_end_of_patience, times=1
    ),
    "processes train on when their agent is gone": Build(
        "R4b", broken_processes.without_noticing_the_end_of_the_agent, times=4
    ),
}


ALWAYS = frozenset(
    {
        "the recurrent state is not resumed",
        "nothing is synced",
        "the manifest is not checked",
        "has schemas without slots",
        "imports the component that a checkpoint names",
        "imports the tokenizer that a checkpoint names",
        "bad steps are not skipped",
        "weights are not looked at",
        "gradients are not exchanged",
    }
)
"""The builds that the default tests try; the others are slow."""


def take_out_here(name: str) -> None:
    """Break this process's `lm`, for good."""
    BUILDS[name].take_out(MonkeyPatch())
