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
from lm.config.parsing import strings
from lm.config.registry import BASES, load_plugins, name_of, schema_named, schema_names
from lm.config.training_roots import TrainConfig
from lm.errors import CheckpointError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


def dump(config: DictConfig) -> str:
    """The configuration as YAML, unresolved, the schemas of its groups first."""
    chosen = {
        group: name_of(group, OmegaConf.get_type(config, group))
        for group in BASES
        if group in config and plain(config)[group] is not None
    }
    header: str = yaml.safe_dump({"schemas": chosen}, sort_keys=False)
    return header + OmegaConf.to_yaml(config)


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
    """Read a saved configuration, shaped like `TrainConfig`, without Hydra.

    Raises:
        CheckpointError: unreadable, not YAML, over the limits of size and depth, with aliases or
            interpolations, or of a schema or field that is not known here.
    """
    content = _read(path)
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
                f"{path}: no {group} is registered as {name!r} ({known})",
                "If it comes from a plugin, set LM_PLUGINS=<the module that registers it>.",
            )
        config[group] = OmegaConf.structured(schema)
    try:
        return cast(DictConfig, OmegaConf.merge(config, content))
    except OmegaConfBaseException as error:
        raise _refusal(path, explain(error, "train").cause) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise _refusal(path, f"is larger than {MAX_BYTES} bytes")
        text = raw.decode()
        _check_events(path, text)
        content = OmegaConf.create(text)  # OmegaConf's loader derives from yaml.SafeLoader
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}", "Name a run directory or a checkpoint."
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _refusal(path, f"is not valid: {str(error).splitlines()[0]}") from error
    if not isinstance(content, DictConfig):
        raise _refusal(path, "is not a mapping")
    return plain(content)


def _check_events(path: Path, text: str) -> None:
    """Walk the file without building it, so that a bomb costs nothing."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal(path, "uses YAML aliases")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise _refusal(path, f"holds the interpolation {event.value!r}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refusal(path, f"is nested deeper than {MAX_DEPTH} levels")


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
