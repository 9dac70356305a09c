"""Configurations on disk: written unresolved, read as a stranger's.

A file names its schemas under `schemas`; they are looked up among the registered ones, never
imported. It may hold no interpolation, so that reading it cannot read the environment.
"""

import dataclasses
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.config.explain import explain
from lm.config.fields import PATH_FIELDS, flatten, plain
from lm.config.parsing import parse, strings
from lm.config.registry import BASES, load_plugins, name_of, schema_named, schema_names
from lm.config.roots.training import TrainConfig
from lm.errors import CheckpointError, ConfigError
from lm.runtime.untrusted import contained, read_text, shown

# Ours have 5,000 bytes and 300 scalars; OmegaConf takes some 0.1 ms for each of these.
MAX_BYTES = 1 << 16
MAX_SCALARS = 3000
MAX_DEPTH = 32
MAX_DIGITS = 40
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def dump(config: DictConfig) -> str:
    """The configuration as YAML, unresolved, the schemas of its groups first.

    Raises:
        ConfigError: it would be too large to be read again.
    """
    header: str = yaml.safe_dump({"schemas": chosen_schemas(config)}, sort_keys=False)
    text = header + OmegaConf.to_yaml(config)
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(
            f"the configuration has {len(text.encode()):,} bytes as YAML, a checkpoint's may have"
            f" {MAX_BYTES:,}",
            "Shorten a text or a list in it.",
        )
    return text


def chosen_schemas(config: DictConfig) -> dict[str, str]:
    """Group → the name of the schema that was chosen for it: `model` → `lstm`."""
    content = plain(config)
    return {
        group: name_of(group, OmegaConf.get_type(config, group))
        for group in BASES
        if content.get(group) is not None
    }


def portable_config(config: DictConfig) -> DictConfig:
    """A copy without interpolations, for a checkpoint that leaves this machine.

    References between fields are resolved. A path field that reads the environment returns to
    its default, which is null for all but `runs`: the value belongs to this machine, and may be
    secret.
    """
    copy = config.copy()
    for name, value in flatten(plain(config)).items():
        if name in PATH_FIELDS and any("${" in text for text in strings(value)):
            OmegaConf.update(copy, name, _default(copy, name))
    try:
        OmegaConf.resolve(copy)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    return copy


def load_config(path: Path) -> DictConfig:
    """Read a saved configuration from its file; see `saved_config`."""
    return saved_config(read_text(path, MAX_BYTES), path)


def flat_config(path: Path) -> dict[str, Any]:
    """A saved configuration by dotted names, to look at and not to build from.

    The names of components stand under those of their groups: `model` → `lstm`. Some milliseconds
    instead of a hundred: no schema is asked whether such a field exists, and the parser is the
    fast one where PyYAML has it. A run's own file may hold interpolations; they stay text.

    Raises:
        CheckpointError: as `saved_config`.
    """
    text = read_text(path, MAX_BYTES)
    loader_type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with contained(path):
        _check_events(path, text, loader_type, interpolations=True)
        content = loader_type(text).get_single_data()
    if not isinstance(content, dict):
        raise _refusal(path, "is not a mapping")
    schemas = content.pop("schemas", None)
    if not isinstance(schemas, dict):
        raise _refusal(path, "names no schemas")
    # A component without fields is an empty leaf of its group's name.
    return {**schemas, **flatten(content), **schemas}


def saved_config(text: str, path: Path, *, interpolations: bool = False) -> DictConfig:
    """A saved configuration, shaped like `TrainConfig`, without Hydra.

    Args:
        path: where it was read, for messages.
        interpolations: may be in it, where it comes from a process of our own.

    Raises:
        CheckpointError: not YAML, over the limits of size and depth, with aliases, tags or
            interpolations, or of a schema or field that is not known here.
    """
    content = _plain_content(text, path, interpolations=interpolations)
    schemas = content.pop("schemas", None)
    if not isinstance(schemas, dict):
        raise _refusal(path, "names no schemas")
    load_plugins()
    config = OmegaConf.structured(TrainConfig)
    for group, name in schemas.items():
        schema = schema_named(group, name) if isinstance(name, str) else None
        if schema is None:
            known = ", ".join(schema_names(group)) if group in BASES else "no such group"
            raise CheckpointError(
                f"{path}: no {group} is registered as {shown(name)} ({known})",
                "If it comes from a plugin, set LM_PLUGINS=<the module that registers it>.",
            )
        config[group] = OmegaConf.structured(schema)
    with contained(path):
        try:
            return cast(DictConfig, OmegaConf.merge(config, content))
        except OmegaConfBaseException as error:
            raise _refusal(path, explain(error, "train").cause) from error


def parse_saved(config: DictConfig, path: Path) -> TrainConfig:
    """A saved configuration as typed objects.

    Raises:
        CheckpointError: a value is missing, ill-typed or out of range.
    """
    with contained(path):
        return parse(config, TrainConfig)


def _plain_content(text: str, path: Path, *, interpolations: bool) -> dict[str, Any]:
    if len(text.encode()) > MAX_BYTES:
        raise _refusal(path, f"is larger than {MAX_BYTES:,} bytes")
    with contained(path):
        _check_events(path, text, interpolations=interpolations)
        content = OmegaConf.create(text)  # OmegaConf's loader derives from yaml.SafeLoader
        if not isinstance(content, DictConfig):
            raise _refusal(path, "is not a mapping")
        return plain(content)


def _check_events(
    path: Path, text: str, loader_type: Any = yaml.SafeLoader, *, interpolations: bool = False
) -> None:
    """Walk the file without building it, so that a bomb costs nothing.

    Args:
        loader_type: the very parser that it will be built with (OmegaConf's is PyYAML's own): two
            of them could see different files.
        interpolations: may be in it.
    """
    check_scalar = _check_number if interpolations else _check_scalar
    depth = scalars = 0
    loader = loader_type(text)
    while loader.check_event():
        event = loader.get_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal(path, "uses YAML aliases")
        if getattr(event, "tag", None) is not None:
            raise _refusal(path, f"uses the YAML tag {shown(event.tag)}")
        if isinstance(event, yaml.ScalarEvent):
            tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            check_scalar(path, event.value, tag)
            scalars += 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refusal(path, f"is nested deeper than {MAX_DEPTH} levels")
        if scalars > MAX_SCALARS:
            raise _refusal(path, f"holds more than {MAX_SCALARS:,} scalars")


def _check_scalar(path: Path, value: str, tag: str) -> None:
    if "${" in value:
        raise _refusal(path, f"holds the interpolation {shown(value)}")
    _check_number(path, value, tag)


def _check_number(path: Path, value: str, tag: str) -> None:
    # 1:59:59:… is a number to YAML, and costs the square of its length.
    if tag in _NUMBERS and len(value) > MAX_DIGITS:
        raise _refusal(path, f"holds a number of {len(value):,} digits")


def _refusal(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {fault}", "It was not written by this version of lm; use another checkpoint."
    )


def _default(config: DictConfig, name: str) -> Any:
    """The dataclass's default of a path field."""
    parent, _, leaf = name.rpartition(".")
    schema = OmegaConf.get_type(config, parent) if parent else OmegaConf.get_type(config)
    assert schema is not None
    return next(field.default for field in dataclasses.fields(schema) if field.name == leaf)
