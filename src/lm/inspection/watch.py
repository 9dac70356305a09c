"""Watching a model read: its layers taken step by step, with everything inside them kept."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm.data.corpus import Unit
from lm.data.store import TokenStore
from lm.data.streams import Streams, Window
from lm.errors import DataError
from lm.models import RecurrentModel
from lm.models.base import Cell, LayerState, State, detach
from lm.models.weights import Weights


@dataclass(slots=True)
class Watch:
    """A `RunCell` that goes by the cells' equations and keeps every state and internal.

    Attributes:
        states: per layer and step the state after it, each tensor a node of its own: a gradient
            with respect to c is not also that of the h which was made of this c.
        internals: per layer and step the gates and candidates.
    """

    states: list[list[LayerState]] = field(default_factory=list)
    internals: list[list[LayerState]] = field(default_factory=list)

    def __call__(
        self,
        cell: Cell,
        x: Float[Tensor, "T B I"],
        state: LayerState,
        weights: Weights,
        initial: LayerState,
        resets: Bool[Tensor, "T B"] | None,
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        states, internals = [], []
        for t, x_t in enumerate(x):
            if resets is not None and bool(resets[t].any()):
                fresh = resets[t].to(x.device)[:, None]
                state = {name: torch.where(fresh, initial[name], state[name]) for name in state}
            after, inside = cell.step(x_t, state, weights)
            state = {name: tensor.clone() for name, tensor in after.items()}
            states.append(state)
            internals.append(inside)
        self.states.append(states)
        self.internals.append(internals)
        return torch.stack([after["h"] for after in states]), state


@dataclass(frozen=True, slots=True)
class Reading:
    """Some streams over a window, and the state that their model comes with.

    Attributes:
        state: before the first token, without a graph.
    """

    window: Window
    state: State

    def watched(self, model: RecurrentModel) -> tuple[Watch, Float[Tensor, "T B F"]]:
        """What happens inside, and the features that come out."""
        watch, device = Watch(), model.device
        features, _ = model.features(
            self.window.tokens.to(device), self.state, resets=self.window.resets, run=watch
        )
        return watch, features


def readings(
    model: RecurrentModel,
    store: TokenStore,
    unit: Unit,
    *,
    steps: int,
    warm_up: int,
    count: int,
    at_once: int,
) -> Iterator[Reading]:
    """Evenly spaced places of a split, at each of which the model has already read a while.

    Args:
        steps: of each reading.
        warm_up: tokens read before, from the initial state.
        count: of places.
        at_once: places to a reading, as its streams.

    Raises:
        DataError: the split is shorter than one place.
    """
    room = len(store) - 1 - warm_up - steps
    if room < 0:
        raise DataError(
            f"{len(store):,} tokens are too few to look {steps:,} steps back after reading"
            f" {warm_up:,}",
            f"Give a longer text, or look back over fewer steps: lags={max(len(store) // 3, 1)}.",
        )
    streams = Streams(store, 1, steps, unit)
    starts = sorted({round(k * room / max(count - 1, 1)) for k in range(count)})
    for first in range(0, len(starts), at_once):
        some = starts[first : first + at_once]
        before = model.initial_state(len(some))
        if warm_up:
            part = streams.read(some, warm_up)
            with torch.no_grad():
                _, before = model.features(part.tokens.to(model.device), resets=part.resets)
        window = streams.read([start + warm_up for start in some], steps)
        yield Reading(window, detach(before))


def places_at_once(model: RecurrentModel, steps: int, memory: int = 1 << 28) -> int:
    """How many places to watch at a time.

    Args:
        memory: bytes for what is kept, roughly; a step keeps some dozen vectors of a layer.
    """
    units = sum(sum(cell.state_sizes.values()) for cell in model.cells)
    return max(1, min(64, memory // (12 * 4 * units * steps)))
