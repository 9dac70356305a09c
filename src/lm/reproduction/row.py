"""What a published result is: the claim, the recipe that gave it, and what running it costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Metric(Enum):
    """What was measured on the test split; less is better."""

    perplexity = "perplexity"
    bits_per_byte = "bits per byte"
    bits_per_character = "bits per character"

    def show(self, value: float) -> str:
        """The value to the digits that mean something."""
        return f"{value:.2f}" if self is Metric.perplexity else f"{value:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """How long a recipe takes on the machines that `lm reproduce --list` names.

    Attributes:
        measured: by running it to the end; else estimated from the speed of its step.
    """

    minutes: float
    measured: bool = False

    def __str__(self) -> str:
        if self.minutes < 90:
            amount = f"{self.minutes:.0f} min"
        elif self.minutes < 48 * 60:
            amount = f"{self.minutes / 60:.1f} h"
        else:
            amount = f"{self.minutes / (24 * 60):.0f} days"
        return amount if self.measured else f"≈ {amount}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training run of a recipe; a later stage starts from the best weights of the one before.

    Attributes:
        name: its folder and label where a recipe has several; empty where it has one.
        experiment: of `configs/experiment`; None is the default recipe.
        overrides: on top of the experiment. `init_from=` takes the model of the stage before, so
            that a later stage changes fields of `model` here and not in its experiment.
        published: the test value after this stage; None where none was stated.
    """

    name: str = ""
    experiment: str | None = None
    overrides: tuple[str, ...] = ()
    published: float | None = None

    def arguments(self, row: str) -> list[str]:
        """The recipe as `lm train` is told it, its runs in a folder of their own."""
        chosen = [f"experiment={self.experiment}"] if self.experiment else []
        folder = "/".join(filter(None, ("reproduce", row, self.name)))
        return [*chosen, *self.overrides, f"name={folder}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A published result.

    Attributes:
        system: what was trained, in a few words.
        data: the source it was trained on, by the name that `data=NAME` selects.
        source: where the published value stands.
        tolerance: by which share the measured value may be worse.
        hashes: SHA-256 (64 digits) or SHA-1 (40) of the bytes of each split, or of all three as
            `text`; None is what the source itself knows as published.
        characters: of the published test split, where its stream is not ours byte for byte;
            total nats are divided by them.
        cpu, gpu: what the whole recipe costs; None is not known.
        note: what a reader has to know about the comparison.
    """

    name: str
    system: str
    data: str
    source: str
    stages: tuple[Stage, ...]
    metric: Metric = Metric.perplexity
    tolerance: float = 0.04
    hashes: Mapping[str, str] | None = None
    characters: int | None = None
    cpu: Cost | None = None
    gpu: Cost | None = None
    note: str = ""

    @property
    def published(self) -> float:
        """The value after the last stage."""
        value = self.stages[-1].published
        assert value is not None, "the last stage is what was published"
        return value
