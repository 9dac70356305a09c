"""A configuration as an experiment: a file that `experiment=` lays over `lm train`."""

from collections.abc import Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from lm.config.composition import compose
from lm.config.fields import flatten, plain
from lm.config.registry import BASES, name_of, schema_names
from lm.config.saved import portable_config

# Which run it is and where, not how it trains.
_NOT_OF_IT = ("name", "runs", "resume", "runtime.cache")


def experiment(config: DictConfig, name: str, header: Sequence[str]) -> str:
    """The YAML of an experiment that comes to this configuration of `lm train`.

    It holds what differs from the defaults of the schemas or from those of the chosen options.

    Args:
        header: lines of a comment.

    Raises:
        ConfigError: an option of a group has no file.
    """
    chosen = {group: name_of(group, OmegaConf.get_type(config, group)) for group in BASES}
    usual = compose("train", [f"{group}={option}" for group, option in chosen.items()])
    bare = _schemas(config)
    defaults = [
        {f"override /{group}": option}
        for group, option in chosen.items()
        if len(schema_names(group)) > 1
    ]
    content: dict[str, Any] = {"name": name}
    known = [flatten(plain(usual)), bare]
    for field, value in flatten(plain(portable_config(config))).items():
        same = all(other.get(field, ...) == value for other in known)
        if not same and field not in _NOT_OF_IT:
            _put(content, field.split("."), value)
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    listed = yaml.safe_dump({"defaults": defaults}, sort_keys=False)
    comment = "".join(f"# {line}\n" for line in header)
    return f"# @package _global_\n{comment}{listed}\n{body}"


def _schemas(config: DictConfig) -> dict[str, Any]:
    """The defaults that are no file's, by dotted names."""
    bare = {group: OmegaConf.structured(OmegaConf.get_type(config, group)) for group in BASES}
    root = plain(OmegaConf.structured(OmegaConf.get_type(config)))
    return flatten(root | {group: plain(schema) for group, schema in bare.items()})


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value
