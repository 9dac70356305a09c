"""What of a configuration makes the numbers: whether two of them are the same recipe."""

from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lm.config.fields import flatten, plain
from lm.config.registry import BASES, name_of
from lm.config.saved import portable_config

NO_NUMBERS = (
    "name",
    "runs",
    "resume",
    "data.path",
    "data.root",
    "data.test",
    "data.train",
    "data.valid",
    "runtime.*",
    "trainer.bar",
    "trainer.keep",
    "trainer.inspect_every",
    "trainer.log_every",
    "trainer.sample*",
    "trainer.save_every",
)
"""Places, logging and the machine: they change no number. What lies at a place is compared by
its content."""

VARIANTS = (
    "seed",
    "runtime.kernels",
    "runtime.precision",
    "trainer.accumulate",
    "trainer.tokens_axis",
)
"""Another run, though of the same recipe: a published value is no matter of the seed, nor of how
the products are done."""


def recipe_changes(recipe: DictConfig, composed: DictConfig) -> tuple[str, ...]:
    """How a configuration departs from a recipe, `name: old → new` of each field that differs."""
    return tuple(
        f"{name}: {_shown(old)} → {_shown(new)}"
        for name, (old, new) in _differences(recipe, composed).items()
        if not _matches(name, (*NO_NUMBERS, *VARIANTS))
    )


def same_run(saved: DictConfig, composed: DictConfig) -> bool:
    """Whether a saved run is what this configuration would train, places and logging aside."""
    differing = _differences(saved, composed)
    return all(_matches(name, NO_NUMBERS) and not _matches(name, VARIANTS) for name in differing)


def _shown(value: Any) -> Any:
    return "null" if value is None else value


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _differences(old: DictConfig, new: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Field → its two values; of a group whose choice differs, that choice alone."""
    before, after = _leaves(old), _leaves(new)
    differing = {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    }
    groups = tuple(f"{group}.*" for group in BASES if group in differing)
    return {name: pair for name, pair in differing.items() if not _matches(name, groups)}


def _leaves(config: DictConfig) -> dict[str, Any]:
    """Field → value, references resolved, and group → the name of its choice."""
    chosen = {group: name_of(group, OmegaConf.get_type(config, group)) for group in BASES}
    return chosen | flatten(plain(portable_config(config)))
