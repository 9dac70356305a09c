"""docs/configuration.md is what the schemas say, and they say what each field is."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from lm import checks
from lm.errors import ConfigError

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)


def test_the_reference_is_that_of_the_schemas_and_leaves_no_field_undescribed() -> None:
    import configuration_reference
    from documentation.reference import Reference

    reference = Reference()
    assert not reference.undescribed, "give them a line in an `Attributes:` section"
    committed = configuration_reference.PAGE.read_text(encoding="utf-8")
    assert committed == reference.page(), "run scripts/configuration_reference.py"


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(kw_only=True, slots=True)
class Part:
    """A part.

    Attributes:
        rate: how often.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        checks.positive("part.rate", self.rate)
        checks.fraction("part.rate", self.rate)


@dataclass(kw_only=True, slots=True)
class Base:
    """What all share.

    Attributes:
        low, high: bounds | limits,
            said on two lines.
    """

    low: int | None = None
    high: int = 9

    def __post_init__(self) -> None:
        checks.at_least("low", self.low, 2)
        checks.at_most("low", self.low, 1000000)
        checks.at_least("len(names)", len(getattr(self, "names", ())), 1)


@dataclass(kw_only=True, slots=True)
class Derived(Base):
    """A schema.

    Attributes:
        names: of whom.
        colour: as in `Borrowed`.
    """

    high: int = 11
    names: list[str]
    colour: Colour = Colour.blue
    part: Part = field(default_factory=lambda: Part(rate=0.25))
    unsaid: bool = False

    def __post_init__(self) -> None:
        Base.__post_init__(self)
        if not self.names:
            raise ConfigError("names is empty", "Set it.")


class Borrowed:
    """Elsewhere.

    Attributes:
        colour: of the sky.
    """


def test_a_field_is_shown_with_type_default_range_and_the_nearest_description() -> None:
    from documentation.schemas import ancestors, own_fields, rules_of

    rules = rules_of(Derived)  # although none can be made without names
    fields = {each.name: each for each in own_fields(Derived, "", rules)}
    shown = {n: (f.kind, f.default, f.rule, f.description) for n, f in fields.items()}
    assert shown == {
        "high": ("int", "`11`", "", "bounds | limits, said on two lines."),
        "names": ("list[str]", "required", "length >= 1", "of whom."),
        "colour": ("choice", "`blue`", "`red`, `blue`", "of the sky."),
        "part": ("", "`rate=0.25`", "", "A part."),
        "unsaid": ("bool", "`false`", "", ""),
    }
    assert ancestors(Derived) == [Base]
    (low,) = own_fields(Base, "", rules)[:1]
    assert (low.kind, low.default, low.rule) == ("int or `null`", "`null`", "2 to 1,000,000")
    (rate,) = own_fields(Part, "part.", rules)
    assert rate.rule == "(0, 1)"
    with pytest.raises(ConfigError):
        checks.at_least("low", 1, 2)  # the checks are themselves again
