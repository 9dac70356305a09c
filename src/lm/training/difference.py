"""Where two checkpoints of what should be one run differ, to the last bit."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lm.checkpoint import Checkpoint

_CLOCK = frozenset({("progress", "seconds"), ("metrics_bytes", "")})
"""A matter of time: seconds, and the length of a file that has tokens per second in it."""

_CIRCUMSTANCES = ("machine", "data", "compute")
"""What all bits follow from, so that it is named before them."""

_PARTS = {
    "optimizer": "optimiser",
    "iterate": "weights behind their average",
    "outliers": "gradient norms",
    "state": "recurrent state",
    "statistics": "running sums",
}
"""The prefixes of `snapshot.capture`, in words."""

Value = TypeVar("Value")
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor or number that is not the same.

    Attributes:
        part: of the run: `weights`, `optimiser`, `recurrent state` and so on.
        how: in what the two differ.
    """

    part: str
    name: str
    how: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.part, self.name, self.how)))


def differences(expected: Checkpoint, found: Checkpoint) -> list[Difference]:
    """All but those of wall-clock time, the ones first that others may follow from."""
    numbers = list(_compared(_numbers(expected), _numbers(found), _how_numbers_differ))
    causes = [difference for difference in numbers if difference.part in _CIRCUMSTANCES]
    return [
        *causes,
        *_compared(_tensors(expected), _tensors(found), _how_tensors_differ),
        *(difference for difference in numbers if difference not in causes),
    ]


def describe(found: Sequence[Difference]) -> str:
    """The first difference, and how many there are besides."""
    rest = Counter(difference.part for difference in found[1:])
    listed = ", ".join(f"{count} in {part}" for part, count in rest.items())
    return f"{found[0]}{f'; {len(found) - 1} more: {listed}' if rest else ''}"


def _compared(
    expected: Mapping[Place, Value],
    found: Mapping[Place, Value],
    how: Callable[[Value, Value], str | None],
) -> Iterator[Difference]:
    for place in dict.fromkeys((*expected, *found)):
        if place not in found:
            yield Difference(*place, "is missing")
        elif place not in expected:
            yield Difference(*place, "should not be there")
        elif text := how(expected[place], found[place]):
            yield Difference(*place, text)


def _tensors(checkpoint: Checkpoint) -> dict[Place, Tensor]:
    tensors = {("weights", name): tensor for name, tensor in checkpoint.model.items()}
    for name, tensor in checkpoint.training.items():
        prefix, _, own = name.partition("/")
        tensors[_PARTS.get(prefix, prefix), own] = tensor
    return tensors


def _numbers(checkpoint: Checkpoint) -> dict[Place, Any]:
    leaves = dict(_leaves(checkpoint.state))
    places = ((name.partition(".")[::2], value) for name, value in leaves.items())
    return {place: value for place, value in places if place not in _CLOCK}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _how_numbers_differ(expected: Any, found: Any) -> str | None:
    # As text: NaN is then the same as NaN, and a float not the same as a whole number.
    return None if repr(expected) == repr(found) else f"is {found!r} instead of {expected!r}"


def _how_tensors_differ(expected: Tensor, found: Tensor) -> str | None:
    for what in ("dtype", "shape"):
        old, new = getattr(expected, what), getattr(found, what)
        if old != new:
            return f"has {what} {_short(new)} instead of {_short(old)}"
    differing = (_bytes(expected) != _bytes(found)).any(1)
    count = int(differing.sum())
    if not count:
        return None
    old, new = expected.reshape(-1)[differing].double(), found.reshape(-1)[differing].double()
    first = f"{new[0].item():.9g} instead of {old[0].item():.9g}"
    if not expected.ndim:
        return f"is {first}"
    largest = (new - old).abs().max().item()
    place = np.unravel_index(int(differing.nonzero()[0]), expected.shape)
    return (
        f"differs in {count:,} of {len(differing):,} elements, by at most {largest:.3g};"
        f" the first, at {[int(index) for index in place]}, is {first}"
    )


def _short(value: object) -> str:
    return str(list(value) if isinstance(value, torch.Size) else value).removeprefix("torch.")


def _bytes(tensor: Tensor) -> UInt8[Tensor, "elements bytes"]:
    """Each element's bits: NaN equals itself so, and −0 is not 0."""
    flat = tensor.contiguous().reshape(-1, 1)
    return flat.view(torch.uint8)
