"""What the YAML files of a group say of its options: a sentence, and fields that they set."""

import re
from pathlib import Path
from typing import Any

import yaml

from lm.config import config_dir
from lm.config.fields import flatten
from lm.config.registry import BASES, schema_named, schema_names

_LABEL = re.compile(r"(\w+): +(.*)")


def built_in(group: str) -> dict[str, type]:
    """The options of a group that are `lm`'s own, with their schemas."""
    found = {name: schema_named(group, name) for name in schema_names(group)}
    return {n: schema for n, schema in found.items() if schema and schema.__module__[:3] == "lm."}


def values(group: str, option: str) -> dict[str, Any]:
    """What an option's file sets besides choosing its schema, by full name."""
    path = config_dir() / group / f"{option}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return flatten({k: v for k, v in content.items() if k != "defaults"}, f"{group}.")


def chosen(verb: str) -> dict[str, str]:
    """Group → the option that a verb takes if it is told nothing; null where that is none."""
    content = yaml.safe_load((config_dir() / f"{verb}.yaml").read_text(encoding="utf-8"))
    entries = [entry for entry in content["defaults"] if isinstance(entry, dict)]
    options = {group: option for entry in entries for group, option in entry.items()}
    return {group: options[group] or "null" for group in BASES if group in options}


def overlays(group: str) -> list[Path]:
    """The files of a group that set fields anywhere."""
    return sorted((config_dir() / group).glob("*.yaml"))


def headline(group: str, option: str) -> str:
    """What an option is, by the first sentence of the comment that its file opens with."""
    path = config_dir() / group / f"{option}.yaml"
    if not path.exists():
        return ""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(_comment(path)))[0]


def labelled(path: Path) -> dict[str, str]:
    """Label → text of a comment such as `Expected: …`, continuation lines joined."""
    found: dict[str, str] = {}
    label = ""
    for line in _comment(path):
        if begins := _LABEL.fullmatch(line):
            label, found[begins[1]] = begins[1], begins[2]
        elif label:
            found[label] += f" {line}"
    return found


def _comment(path: Path) -> list[str]:
    """The lines of the opening comment, up to an empty one."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.rstrip() == "#":
            break
        if not line.startswith("# @package"):
            found.append(line.removeprefix("#").strip())
    return found
