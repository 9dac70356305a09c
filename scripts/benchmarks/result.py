"""One comparison: what it says, and how it is written down."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

# Units of which less is better; of all others (rates) more is.
_COSTS = {"s", "MB"}


@dataclass(frozen=True, slots=True)
class Result:
    """Ours against the textbook, in one unit.

    Attributes:
        details: whatever else was measured, by name; see `docs/benchmarks.md`.
    """

    name: str
    ours: float
    textbook: float
    unit: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Above 1 where ours is better, whatever the unit."""
        if self.unit in _COSTS:
            return self.textbook / self.ours
        return self.ours / self.textbook

    def to_json(self) -> dict[str, Any]:
        """A flat object: name, ours, textbook, ratio, unit, then the details."""
        numbers = asdict(self)
        details = numbers.pop("details")
        return {**numbers, "ratio": self.ratio, **details}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        """The inverse of `to_json`.

        Raises:
            ValueError: a field is missing.
        """
        rest = dict(data)
        try:
            name, ours, textbook, unit, _ = (
                rest.pop(key) for key in ("name", "ours", "textbook", "unit", "ratio")
            )
        except KeyError as error:
            raise ValueError(f"a result lacks {error}") from error
        return cls(name, ours, textbook, unit, rest)


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A row that this machine cannot run, and why."""

    name: str
    reason: str


Outcome = Result | NotMeasured


class MismatchError(Exception):
    """The two sides do not compute the same, so that their times mean nothing."""


def check_equal(what: str, ours: float, textbook: float, limit: float) -> None:
    """Hold the two sides against each other before they are timed.

    Raises:
        MismatchError: they differ by more than the relative `limit`, or one is not finite.
    """
    if not math.isclose(ours, textbook, rel_tol=limit):
        raise MismatchError(
            f"{what} is {ours:.7g} in ours but {textbook:.7g} in the textbook's"
            f" (at most {limit:g} relative is rounding); nothing was timed"
        )
