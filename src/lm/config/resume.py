"""Which differences from a saved run `resume=` accepts.

A resumed run continues exactly, so its configuration is the saved one. From the command line it
takes what does not touch the numbers: limits, logging, retention, the machine, and where files
lie (their content is compared by fingerprint).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lm.config.fields import PATH_FIELDS, flatten, plain
from lm.config.parsing import strings
from lm.config.registry import BASES, name_of
from lm.errors import ConfigError

ALLOWED = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_tokens",
    "trainer.max_seconds",
    "trainer.inspect_every",
    "trainer.log_every",
    "trainer.sample*",
    "trainer.keep",
    "trainer.patience",
    "trainer.test",
    "trainer.save_every",
    "trainer.save_in_background",
    "trainer.bar",
    "runtime.*",
    *sorted(PATH_FIELDS - {"init_from"}),
)


def resume_config(saved: DictConfig, composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The saved configuration with the overrides that a resumed run may take.

    Args:
        saved: of the run.
        composed: of the command line, with its overrides applied.
        overrides: the command line's; only what they name is looked at.

    Raises:
        ConfigError: an override would change another field; names it with both values.
    """
    result = saved.copy()
    old, new = flatten(plain(saved)), flatten(plain(composed))
    top = {name.partition(".")[0] for name in new}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if override.is_hydra_override():
            continue
        # An overlay such as experiment=… names no field, and may set all of them.
        overlay = key.partition(".")[0] not in top
        for group in BASES:
            if overlay or _within(key, group):
                _compare_schema(group, saved, composed)
        named = [name for name in {**new, **old} if overlay or _within(name, key)]
        for name in named:
            if not any(fnmatchcase(name, pattern) for pattern in ALLOWED):
                _compare(name, _value(saved, old, name), _value(composed, new, name))
            elif name == key or (key in BASES and new[name] != _default(key, name)):
                OmegaConf.update(result, name, new[name])
    # The corpus that a stranger's run names must not be copied to where it says, too.
    OmegaConf.update(result, "runtime.cache", new["runtime.cache"])
    # How many processes there are is settled before the run is looked at.
    for name in ("runtime.processes", "runtime.restarts"):
        OmegaConf.update(result, name, new[name])
    # A path that read the environment is null in a checkpoint: this machine's own stands in.
    for name in PATH_FIELDS - {"init_from", "resume"}:
        if name in old and old[name] is None and new.get(name) is not None:
            OmegaConf.update(result, name, new[name])
    return result


def _within(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _value(config: DictConfig, leaves: dict[str, Any], name: str) -> Any:
    value = leaves.get(name)
    refers = any("${" in text for text in strings(value))
    return OmegaConf.select(config, name) if refers else value


def _default(group: str, name: str) -> Any:
    """The value that `name` has in its group's base schema, as far as that has it."""
    return OmegaConf.select(OmegaConf.structured({group: BASES[group]}), name)


def _compare_schema(group: str, saved: DictConfig, composed: DictConfig) -> None:
    old, new = (OmegaConf.get_type(config, group) for config in (saved, composed))
    if old is not new:
        _compare(group, name_of(group, old), name_of(group, new))


def _compare(name: str, saved: object, requested: object) -> None:
    if saved != requested:
        raise ConfigError(
            f"{name} cannot change on resume: the run has {saved!r}, requested {requested!r}",
            "Drop the override, or start a new run from the weights with init_from=<run>.",
        )
