"""Whether a measured value reproduces the published one."""

from dataclasses import dataclass
from enum import Enum

from lm.reproduction.row import Row, Stage


class Verdict(Enum):
    """What came out; a modified recipe is never a reproduction, however good its number."""

    passed = "PASS"
    failed = "FAIL"
    modified = "modified"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A stage's measured test value beside the published one.

    Attributes:
        changes: how recipe or data differ from the published ones, one item each.
    """

    row: Row
    stage: Stage
    published: float
    measured: float
    changes: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """Relative to the published value; above zero is worse."""
        return self.measured / self.published - 1.0

    @property
    def verdict(self) -> Verdict:
        """A value better than the published one passes: the tolerance bounds how much worse."""
        if self.changes:
            return Verdict.modified
        # A NaN compares false, and so fails.
        return Verdict.passed if self.difference <= self.row.tolerance else Verdict.failed

    def describe(self) -> str:
        """One line for people, all numbers in it."""
        label = " ".join(filter(None, (self.row.name, self.stage.name)))
        line = (
            f"{self.verdict.value}  {label}: test {self.row.metric.value}"
            f" {self.row.metric.show(self.measured)},"
            f" published {self.published:g}: {self.difference:+.1%}, allowed"
            f" {self.row.tolerance:+.1%}"
        )
        if self.changes:
            return f"{line}; modified recipe: {', '.join(self.changes)}"
        if self.difference < -self.row.tolerance:
            return f"{line}; better by more than that: are data and recipe the published ones?"
        return line
