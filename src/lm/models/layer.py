"""A layer over a window, with the state reset wherever the text says so."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm.models.base import Cell, LayerState
from lm.models.weights import Weights

# A layer over a window: (cell, x, state, weights, initial state, resets) → (y, state).
RunCell = Callable[
    [Cell, Tensor, LayerState, Weights, LayerState, Tensor | None], tuple[Tensor, LayerState]
]


def run_cell(
    cell: Cell,
    x: Float[Tensor, "T B I"],
    state: LayerState,
    weights: Weights,
    initial: LayerState,
    resets: Bool[Tensor, "T B"] | None,
) -> tuple[Float[Tensor, "T B H"], LayerState]:
    """A layer over a window, cut into pieces where any stream's state is reset."""
    cuts = [] if resets is None else resets.any(1).nonzero().flatten().tolist()
    if not cuts:
        return cell.sequence(x, state, weights)
    assert resets is not None
    outputs = []
    for begin, end in zip([0, *cuts], [*cuts, len(x)], strict=True):
        if end > begin:
            y, state = cell.sequence(x[begin:end], state, weights)
            outputs.append(y)
        if end < len(x):
            fresh = resets[end].to(x.device)[:, None]
            state = {name: torch.where(fresh, initial[name], state[name]) for name in state}
    return torch.cat(outputs), state
