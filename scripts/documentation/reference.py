"""docs/configuration.md: every verb, group, option and field, from the schemas themselves."""

from collections.abc import Iterable, Iterator, Mapping

from documentation.markdown import cell, link, slug, table
from documentation.options import built_in, chosen, headline, labelled, overlays, values
from documentation.schemas import Field, Rules, ancestors, own_fields, rules_of, summary, typed
from lm.cli import VERBS
from lm.config import ROOTS
from lm.config.registry import BASES, OVERLAYS

_INTRODUCTION = """\
# Configuration reference

<!-- Written by scripts/configuration_reference.py from the schemas: change their docstrings. -->

Every verb takes `group=option` and `field=value`, in any order: `lm train model=gru optim.lr=0.01`.
A field that is off is `null`; a list is `[a,b]`; a mapping is set field by field. With `-m` a field
takes several values, one run for each. What is out of range, mistyped or unknown is refused before
anything is written. `lm <verb> --help` lists the fields too, `lm <verb> --cfg job` shows the
configuration that a command line comes to. The ranges are the very ones that are checked; what
excludes each other says so when it is tried.
"""

_COLUMNS = ["field", "type", "default", "range", "what it is"]


class Reference:
    """The page.

    Attributes:
        undescribed: fields of which no docstring says what they are.
    """

    def __init__(self) -> None:
        self.undescribed: list[str] = []
        self._titles: list[tuple[int, str]] = []
        self._homes: dict[type, str] = {}  # schema → the heading under which its fields stand
        # Verbs first: whoever derives a schema has to find the other described.
        self._body = "\n".join([*self._verbs(), *self._groups(), *self._overlays()])

    def page(self) -> str:
        """The page as Markdown."""
        contents = "\n".join(f"{'  ' * (level - 2)}- {link(t)}" for level, t in self._titles)
        return f"{_INTRODUCTION}\n{contents}\n\n{self._body}"

    def _verbs(self) -> Iterator[str]:
        yield self._heading(2, "verbs")
        for verb, root in ROOTS.items():
            yield self._heading(3, f"lm {verb}", root)
            yield f"{VERBS[verb][:1].upper()}{VERBS[verb][1:]}.\n"
            rules = rules_of(root)
            yield from self._fields(root, "", rules, chosen(verb), f"lm {verb}: ")
            yield from self._parts([root], "", rules, f"lm {verb}: ")

    def _groups(self) -> Iterator[str]:
        yield self._heading(2, "groups")
        for group, base in BASES.items():
            options = built_in(group)
            yield self._heading(3, group, base)
            yield f"{summary(base)}\n"
            if base not in options.values():
                rows = [[link(f"{group}={name}"), cell(headline(group, name))] for name in options]
                yield table(["option", "what it is"], rows)
            example = rules_of(next(iter(options.values())))
            yield from self._fields(base, f"{group}.", example)
            for name, schema in options.items():
                if schema is base:  # the group's only option, which needs no heading of its own
                    yield from _also_set(group, name)
                else:
                    yield from self._option(group, name, schema, options)
            families = [each for s in options.values() for each in (*ancestors(s), s)]
            yield from self._parts(dict.fromkeys(families), f"{group}.", example)

    def _option(
        self, group: str, name: str, schema: type, options: Mapping[str, type]
    ) -> Iterator[str]:
        rules = rules_of(schema)
        for shared in reversed(ancestors(schema)):
            if shared not in self._homes and shared not in options.values():
                yield self._heading(4, f"{group}: {shared.__name__}", shared)
                yield f"{summary(shared)}\n"
                yield from self._fields(shared, f"{group}.", rules)
        yield self._heading(4, f"{group}={name}", schema)
        yield f"{summary(schema)}\n"
        yield from self._fields(schema, f"{group}.", rules)
        yield from _also_set(group, name)

    def _fields(
        self,
        schema: type,
        prefix: str,
        rules: Rules,
        groups: Mapping[str, str] = {},
        owner: str = "",
    ) -> Iterator[str]:
        """A schema's own fields, and where those stand that it derives.

        Args:
            groups: the option of each group that is chosen if nothing is said.
            owner: before the headings of the parts that its fields hold.
        """
        fields = own_fields(schema, prefix, rules)
        if fields:
            yield table(_COLUMNS, [self._row(prefix, each, groups, owner) for each in fields])
        for field in fields:
            if not field.description:
                self.undescribed.append(f"{schema.__module__}.{schema.__name__}.{field.name}")
        homes = [self._homes[parent] for parent in ancestors(schema) if parent in self._homes]
        if homes:
            yield f"{'Also' if fields else 'Has'} the fields of {', '.join(map(link, homes))}.\n"

    def _row(self, prefix: str, field: Field, groups: Mapping[str, str], owner: str) -> list[str]:
        name, kind, default = f"{prefix}{field.name}", field.kind, field.default
        if field.group:
            kind = f"group {link(field.group)}"
            default = f"`{groups.get(field.group, 'null')}`"
        elif field.part:
            # A part that several fields hold is described under the first one's name.
            home = self._homes.setdefault(field.part, f"{owner}{name}")
            kind = f"fields of {link(home)}"
        return [f"`{name}`", kind, cell(default), cell(field.rule), cell(field.description)]

    def _parts(
        self, schemas: Iterable[type], prefix: str, rules: Rules, owner: str = ""
    ) -> Iterator[str]:
        """The schemas that the fields of `schemas` hold, and those that these hold."""
        for field in (each for s in schemas for each in own_fields(s, prefix, rules)):
            name = f"{prefix}{field.name}"
            if field.part and self._homes[field.part] == f"{owner}{name}":
                yield self._heading(4, f"{owner}{name}")
                yield f"{summary(field.part)}\n"
                yield from self._fields(field.part, f"{name}.", rules, owner=owner)
                yield from self._parts([field.part], f"{name}.", rules, owner)

    def _overlays(self) -> Iterator[str]:
        yield self._heading(2, "overlays")
        yield "Files that set fields anywhere: an experiment is a recipe, debug a closer look.\n"
        for group in filter(overlays, OVERLAYS):
            yield self._heading(3, group)
            notes = {path.stem: labelled(path) for path in overlays(group)}
            labels = list(dict.fromkeys(label for note in notes.values() for label in note))
            labels = [label for label in labels if label != "Command"]  # it is the option itself
            if labels:
                rows = [[f"`{group}={n}`", *(cell(note.get(label, "")) for label in labels)]
                        for n, note in notes.items()]  # fmt: skip
            else:
                rows = [[f"`{group}={n}`", cell(headline(group, n))] for n in notes]
            yield table(["option", *(map(str.lower, labels) if labels else ["what it does"])], rows)

    def _heading(self, level: int, title: str, schema: type | None = None) -> str:
        """A heading, which is where `schema` is described from now on."""
        assert slug(title) not in {slug(other) for _, other in self._titles}, title
        self._titles.append((level, title))
        if schema is not None:
            self._homes[schema] = title
        return f"{'#' * level} {title}\n"


def _also_set(group: str, option: str) -> Iterator[str]:
    changed = ", ".join(f"`{key}={typed(value)}`" for key, value in values(group, option).items())
    if changed:
        yield f"`{group}={option}` also sets {changed}.\n"
