"""Gates and states while a model reads: how far saturated, how long units keep what they hold."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lm.data.corpus import Unit
from lm.data.store import TokenStore
from lm.inspection.watch import Watch, places_at_once, readings
from lm.models import RecurrentModel
from lm.models.base import Cell
from lm.runtime.compute import exact_products

# So near to an end of its range a gate is as good as closed or open, a state at rest.
_END = 0.1
_BINS = 40
# A unit that moves by less is dead: it says the same whatever is read.
_UNMOVED = 1e-3
_SAMPLE = 20_000
# Half-lives beyond are given as this many steps: no text that a model sees is longer.
LONGEST = 1e6


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of a gate, candidate or state over units, streams and steps.

    Attributes:
        bounds: the range that it keeps to, (0, 1) or (−1, 1); None is none of these.
        low, high: shares of the values within 0.1 of that range's ends; None without bounds.
        counts: of the values in equal bins between the two `edges`.
        sample: some of the values, evenly taken.
    """

    mean: float
    deviation: float
    bounds: tuple[float, float] | None
    low: float | None
    high: float | None
    counts: list[int]
    edges: tuple[float, float]
    sample: NDArray[np.float32]

    @classmethod
    def of(cls, values: Tensor) -> "Distribution":
        """Of values of any shape."""
        flat = values.float().flatten().cpu().numpy()
        least, largest = float(flat.min()), float(flat.max())
        lower = 0.0 if least >= 0 else -1.0
        bounded = lower <= least and largest <= 1
        edges = (lower, 1.0) if bounded else (least, largest)
        counts, _ = np.histogram(flat, bins=_BINS, range=edges)
        return cls(
            mean=float(flat.mean(dtype=np.float64)),
            deviation=float(flat.std(dtype=np.float64)),
            bounds=edges if bounded else None,
            low=float((flat < lower + _END).mean()) if bounded else None,
            high=float((flat > 1 - _END).mean()) if bounded else None,
            counts=counts.tolist(),
            edges=edges,
            sample=flat[:: max(1, len(flat) // _SAMPLE)].copy(),
        )

    @property
    def saturated(self) -> float | None:
        """Share of the values near either end."""
        return None if self.low is None or self.high is None else self.low + self.high

    def to_json(self) -> dict[str, object]:
        """Plain data, without the sample."""
        return {name: value for name, value in asdict(self).items() if name != "sample"}


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """What a layer does.

    Attributes:
        gates: of its gates and candidates by name.
        states: of its state's tensors by name.
        dead_units: units of h that do not move.
        half_lives: per unit the steps in which it forgets half of what it holds, sorted; None
            where the cell does not say which of its gates that is.
    """

    gates: dict[str, Distribution]
    states: dict[str, Distribution]
    num_units: int
    dead_units: int
    half_lives: list[float] | None

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "gates": {name: found.to_json() for name, found in self.gates.items()},
            "states": {name: found.to_json() for name, found in self.states.items()},
            "num_units": self.num_units,
            "dead_units": self.dead_units,
            "half_lives": self.half_lives,
        }


@torch.no_grad()
def measure_activations(
    model: RecurrentModel, store: TokenStore, unit: Unit, *, steps: int, places: int
) -> list[LayerActivations]:
    """Per layer, at evenly spaced places of a split, after as many tokens of warm-up as steps.

    Raises:
        DataError: the split is too short.
    """
    at_once = min(places, places_at_once(model, steps))
    with exact_products():
        (reading,) = readings(
            model, store, unit, steps=steps, warm_up=steps, count=at_once, at_once=at_once
        )
        watch, _ = reading.watched(model)
    return activations(model, watch)


def activations(model: RecurrentModel, watch: Watch) -> list[LayerActivations]:
    """Per layer, of what has been watched."""
    return [_layer(cell, k, watch) for k, cell in enumerate(model.cells)]


def _layer(cell: Cell, k: int, watch: Watch) -> LayerActivations:
    gates, states = _over_time(watch.internals[k]), _over_time(watch.states[k])
    moves = states["h"].amax((0, 1)) - states["h"].amin((0, 1))
    return LayerActivations(
        gates={name: Distribution.of(values) for name, values in gates.items()},
        states={name: Distribution.of(states[name]) for name in cell.learned_states},
        num_units=len(moves),
        dead_units=int((moves < _UNMOVED).sum()),
        half_lives=None if cell.retention is None else half_lives(gates[cell.retention]),
    )


def _over_time(steps: list[dict[str, Tensor]]) -> dict[str, Float[Tensor, "T B _"]]:
    return {name: torch.stack([step[name] for step in steps]).detach() for name in steps[0]}


def half_lives(kept: Float[Tensor, "T B H"]) -> list[float]:
    """Per unit the steps after which half is left of what it holds, sorted.

    What is left after n steps is the product of n gates, so it is their geometric mean that
    counts: half-life = ln 2 / −mean(ln f).
    """
    rate = -kept.double().log().mean((0, 1))
    return (math.log(2) / rate.clamp(min=math.log(2) / LONGEST)).sort().values.tolist()
