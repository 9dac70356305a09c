"""Each number that can be configured, set to what is none or has no meaning."""

from collections.abc import Iterator
from types import UnionType
from typing import Any

from bad_configs import Bad
from random_configs import fields_of

from lm.config.registry import BASES, schema_names

SENSELESS = ("nan", "inf", "-inf", "-1e30", "1e30", "9" * 30)
NEEDED = {"train": "", "verify-resume": "", "evaluate": "run=r ", "generate": "run=r "}


def every_number() -> list[Bad]:
    """Every numeric field of every schema and root, with each senseless value."""
    return [
        Bad(f"{name}={value}", f"{given} {name}={value}", name.rpartition(".")[2], family="numbers")
        for name, given in dict(_numbers()).items()
        for value in SENSELESS
    ]


def _numbers() -> Iterator[tuple[str, str]]:
    """The dotted name of each, and what has to be given besides."""
    for group in BASES:
        for option in schema_names(group):
            needed = " data.path=text.txt" if option == "text" else ""
            for name, kind, _ in fields_of("train", {group: option}):
                if name.startswith(f"{group}.") and _is_number(kind):
                    yield name, f"train {group}={option}{needed}"
    for verb, needed in NEEDED.items():
        for name, kind, _ in fields_of(verb, {}):
            if name.partition(".")[0] not in BASES and _is_number(kind):
                yield name, f"{verb} {needed}".strip()


def _is_number(kind: Any) -> bool:
    kinds = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    return kinds[0] in (int, float)
