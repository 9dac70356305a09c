"""Schemas as their users see them: names as typed, defaults as typed, ranges, descriptions."""

import dataclasses
import inspect
import re
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, Union, cast, get_args, get_origin
from unittest import mock

from omegaconf import MISSING

from lm import checks
from lm.config.registry import BASES, schema_named, schema_names
from lm.errors import ConfigError

Rules = dict[str, list[str]]

_GENERIC = {
    f"<= {checks.LARGEST}",
    f"<= {checks.MOST}",
    f">= {checks.SMALLEST:g}",
    f"from {-checks.LARGEST:g} to {checks.LARGEST:g}",
    "a finite number",
}
"""What holds for every number of its kind, and so need not be said."""

_CHECKED = ["name", "value"]
"""How the parameters of a range check begin."""

_ENTRY = re.compile(r" {4}(\w+(?:, \w+)*): (.*)")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema.

    Attributes:
        name: within its schema.
        kind: its type in words.
        default: as typed; `required` where there is none.
        rule: the range or choices that its schema checks; may be empty.
        description: from an `Attributes:` section, or of the part or group that it holds; empty
            where nobody wrote one.
        part: the schema of its own that it holds.
        group: the group whose option it holds.
    """

    name: str
    kind: str
    default: str
    rule: str
    description: str
    part: type | None = None
    group: str | None = None


def own_fields(schema: type, prefix: str, rules: Rules) -> list[Field]:
    """The fields that a schema adds to those it derives from, or gives another default.

    Args:
        prefix: before the names as the user types them, such as `model.dropout.`.
        rules: of `rules_of`, by full name.
    """
    own = inspect.get_annotations(schema)
    return [
        _field(schema, field, _rule(f"{prefix}{field.name}", rules))
        for field in dataclasses.fields(schema)
        if field.name in own
    ]


def ancestors(schema: type) -> list[type]:
    """The dataclasses with fields of their own that a schema derives from, nearest first."""
    parents = [parent for parent in schema.__mro__[1:] if dataclasses.is_dataclass(parent)]
    return [parent for parent in parents if own_fields(parent, "", {})]


def attributes(schema: type) -> dict[str, str]:
    """Name → description, from the `Attributes:` section of a class's docstring."""
    section = inspect.cleandoc(schema.__doc__ or "").partition("\nAttributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if entry := _ENTRY.fullmatch(line):
            names = entry[1].split(", ")
            found.update(dict.fromkeys(names, entry[2]))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def described(schema: type, name: str) -> str:
    """What the docstring of a schema, or of one that it derives from, says of a field."""
    texts = (attributes(parent).get(name) for parent in schema.__mro__)
    text = next(filter(None, texts), "")
    if elsewhere := re.fullmatch(r"as in `(\w+)`\.?", text):
        other = vars(sys.modules[schema.__module__]).get(elsewhere[1])
        return "" if other is None else described(other, name)
    return text


def summary(schema: type) -> str:
    """The first sentence or so of a docstring: all up to the first blank line."""
    return inspect.cleandoc(schema.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def rules_of(schema: type) -> Rules:
    """What a schema checks of its fields, as its messages say it, by full name.

    Making one is enough: each check is asked for its rule, whatever the value, so that the
    reference cannot say anything else than the program does.
    """
    given = {f.name: _stand_in(f) for f in dataclasses.fields(schema) if _is_open(f)}
    # An error is of values that need each other; the checks of single fields come before.
    with _recorded() as rules, suppress(ConfigError):
        schema(**given)
    return rules


@contextmanager
def _recorded() -> Iterator[Rules]:
    """Let `lm.checks` note its rules instead of enforcing them."""
    rules: Rules = defaultdict(list)

    def note(condition: bool, name: str, rule: str, value: object) -> None:
        if rule not in (*rules[name], *_GENERIC):
            rules[name].append(rule)

    def asked(check: Callable[..., None]) -> Callable[..., None]:
        return lambda name, value, *bound: check(name, 1 if value is None else value, *bound)

    patched: dict[str, Any] = {
        name: asked(check)
        for name, check in vars(checks).items()
        if inspect.isfunction(check) and [*inspect.signature(check).parameters][:2] == _CHECKED
    }
    with mock.patch.multiple(checks, **patched, _require=note):
        yield rules


def _is_open(field: dataclasses.Field[Any]) -> bool:
    """Whether a schema cannot be made without a value for the field."""
    without = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return without or field.default == MISSING


def _stand_in(field: dataclasses.Field[Any]) -> Any:
    """A value that a required field may have."""
    group = group_of(field.type)
    if group is not None:
        return schema_named(group, schema_names(group)[0])()  # type: ignore[misc]
    kind = get_origin(field.type) or field.type
    return kind() if kind in (list, dict) else 1.0 if kind is float else "x"


def group_of(kind: object) -> str | None:
    """The group whose options a field of this type holds."""
    return next((group for group, base in BASES.items() if _bare(kind) is base), None)


def _bare(kind: object) -> Any:
    """A type without `| None`."""
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _field(schema: type, field: dataclasses.Field[Any], rule: str) -> Field:
    bare = _bare(field.type)
    group = group_of(field.type)
    holds_part = group is None and dataclasses.is_dataclass(bare)
    part: type | None = cast(type, bare) if holds_part else None
    description = described(schema, field.name)
    if not description and (group or part):
        description = summary(bare)
    members = [*bare.__members__] if isinstance(bare, type) and issubclass(bare, Enum) else []
    choices = ", ".join(f"`{member}`" for member in members)
    kind = "" if group or part else "choice" if members else _kind(bare)
    if bare is not field.type and kind:
        kind += " or `null`"
    return Field(field.name, kind, _default(field, part), choices or rule, description, part, group)


def _kind(bare: Any) -> str:
    inside = ", ".join(_kind(part) for part in get_args(bare))
    name: str = (get_origin(bare) or bare).__name__
    return f"{name}[{inside}]" if inside else name


def _default(field: dataclasses.Field[Any], part: type | None) -> str:
    if _is_open(field):
        return "required"
    factory = field.default_factory
    value = field.default if factory is dataclasses.MISSING else factory()
    if part is not None and value is not None:
        usual, inner = part(), [field.name for field in dataclasses.fields(part)]
        differing = [name for name in inner if getattr(value, name) != getattr(usual, name)]
        return ", ".join(f"`{name}={typed(getattr(value, name))}`" for name in differing)
    return f"`{typed(value)}`"


def typed(value: object) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "''"


def _rule(name: str, rules: Rules) -> str:
    found = []
    for pattern, said in rules.items():
        counted = pattern.removeprefix("len(").removesuffix(")")
        if fnmatchcase(name, counted):
            found += [f"length {rule}" if counted != pattern else rule for rule in said]
    short = [re.sub(r"^a (finite )?number (in )?", "", rule) for rule in found]
    return _joined(list(dict.fromkeys(short)))


def _joined(rules: list[str]) -> str:
    """Two bounds as one range."""
    if rules == ["> 0", "[0, 1)"]:
        return "(0, 1)"
    bounds = re.fullmatch(r">= (\d+), <= (\d+)", ", ".join(rules))
    return f"{int(bounds[1]):,} to {int(bounds[2]):,}" if bounds else ", ".join(rules)
