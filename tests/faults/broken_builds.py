"""Builds of `lm` with a defence taken out: a row that stays green under one of them proves nothing.

Rows work in processes of their own, so a build is broken by name in each process (`processes`).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest import MonkeyPatch  # noqa: PT013


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


def _no_manifest(patch: MonkeyPatch) -> None:
    def believe(folder: Path) -> None:
        return None

    patch.setattr("lm.checkpoint.verify", believe)


def _any_component(patch: MonkeyPatch) -> None:
    def imported(name: str) -> Any:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)

    def schema_named(group: str, name: str) -> type:
        return imported(name)

    patch.setattr("lm.config.saved.schema_named", schema_named)


def _any_tokenizer(patch: MonkeyPatch) -> None:
    class Imported(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            module, _, attribute = name.rpartition(".")
            return getattr(importlib.import_module(module), attribute)

    patch.setattr("lm.data.tokenizers.registry.LOADERS", Imported())


def _interpolations(patch: MonkeyPatch) -> None:
    patch.setattr("lm.config.saved._check_scalar", lambda path, value, tag: None)


def _hydra_runs(patch: MonkeyPatch) -> None:
    patch.setattr("lm.config.composition.check_hydra", lambda hydra, overrides: None)


def _any_value(patch: MonkeyPatch) -> None:
    from lm.training.progress import Progress

    patch.setattr(Progress, "from_json", classmethod(lambda cls, saved: cls(**saved)))


BUILDS: dict[str, Build] = {
    "believes a checkpoint without comparing it with its manifest": Build(
        "X1", _no_manifest, only="hostile metadata in model.safetensors, unsealed, generate"
    ),
    "imports the component that a checkpoint names": Build(
        "X2", _any_component, only="schemas.model='evil.call'"
    ),
    "imports the tokenizer that a checkpoint names": Build(
        "X2", _any_tokenizer, only="kind 'evil.call'"
    ),
    "lets a checkpoint's configuration read the environment": Build(
        "X1", _interpolations, only="runs: ${oc.env:HOME}, sealed, load"
    ),
    "lets YAML files have Hydra run code": Build(
        "X2", _hydra_runs, only="configs/experiment/callback_unpickles.yaml"
    ),
    "takes counters as a checkpoint has them": Build("X5", _any_value, times=40),
}


def take_out_here(name: str) -> None:
    """Break this process's `lm`, for good."""
    BUILDS[name].take_out(MonkeyPatch())
