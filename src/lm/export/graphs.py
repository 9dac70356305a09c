"""A recurrent model as two programs: a window of any length, and one step of it.

Both are made of the cells' `step`, the equations themselves, so that every cell can be exported,
one of your own too. The window is torch's `scan` over them, which keeps the number of steps open
where a loop would be unrolled; the head sees all steps at once.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lm.errors import ConfigError
from lm.models import LanguageModel, RecurrentModel
from lm.models.base import State

if TYPE_CHECKING:
    from torch.export import ExportedProgram

WINDOW, STEP = "model", "step"
"""Names of the two programs."""


def exportable(model: LanguageModel) -> RecurrentModel:
    """The model, if it is one of those that can be exported.

    Raises:
        ConfigError: it has no recurrent state of tensors, as an n-gram model has none.
    """
    if isinstance(model, RecurrentModel):
        return model
    raise ConfigError(
        f"lm export is for recurrent models, and this run's is a {type(model).__name__}",
        "Export a run with a recurrent model, such as model=lstm.",
    )


def state_sizes(model: RecurrentModel) -> dict[str, int]:
    """Size of each tensor of the state, [B, size], by its name in the graphs: `state.0.h`."""
    return {
        f"state.{k}.{name}": size
        for k, cell in enumerate(model.cells)
        for name, size in cell.state_sizes.items()
    }


def new(name: str) -> str:
    """How the graphs call a tensor of the state after they ran: `new_state.0.h`."""
    return f"new_{name}"


def flat(model: RecurrentModel, state: State) -> list[Tensor]:
    """A state's tensors in the order of `state_sizes`."""
    return [
        layer[name]
        for cell, layer in zip(model.cells, state, strict=True)
        for name in cell.state_sizes
    ]


def nested(model: RecurrentModel, tensors: list[Tensor]) -> State:
    """The inverse of `flat`."""
    rest = iter(tensors)
    return [{name: next(rest) for name in cell.state_sizes} for cell in model.cells]


class StepProgram(nn.Module):
    """tokens [B], state → log-probabilities [B, V] of the next token, state."""

    def __init__(self, model: RecurrentModel) -> None:
        super().__init__()
        self.model = model

    def features(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What enters the head after one token, and the new state: `RecurrentModel` unrolled."""
        model = self.model
        x = nn.functional.embedding(tokens, model.embedding.weight)
        total, after = None, []
        for k, (cell, layer) in enumerate(zip(model.cells, nested(model, state), strict=True)):
            stepped, _ = cell.step(x, layer, cell.weights())
            after += [stepped[name] for name in cell.state_sizes]
            x = stepped["h"] + x if model.residual and k else stepped["h"]
            total = x if total is None or not model.skip else total + x
        assert total is not None
        return total, after

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        features, after = self.features(tokens, state)
        return self.model.head.log_prob(features), after


class WindowProgram(StepProgram):
    """tokens [T, B], state → log-probabilities [T, B, V] after each token, state."""

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        def advance(before: list[Tensor], token: Tensor) -> tuple[list[Tensor], Tensor]:
            features, after = self.features(token, before)
            # What a scan carries must share no memory with what it gives, nor change its layout.
            carried = [tensor.clone(memory_format=torch.contiguous_format) for tensor in after]
            return carried, features.clone()

        from torch._higher_order_ops.scan import scan  # takes seconds, as torch.export below

        last, features = scan(advance, state, tokens)
        return self.model.head.log_prob(features), last


@torch.no_grad()
def programs(model: RecurrentModel) -> "dict[str, ExportedProgram]":
    """Both programs by name, with T and B left open."""
    from torch.export import Dim, export

    example = flat(model, model.initial_state(3))
    start = [tensor.clone() for tensor in example]  # a learned one is a view of a single row
    tokens = torch.zeros(4, 3, dtype=torch.int64, device=model.device)
    steps, streams = Dim("T", min=1), Dim("B", min=1)
    state = [{0: streams}] * len(start)
    found = {
        WINDOW: export(
            WindowProgram(model), (tokens, start), dynamic_shapes=({0: steps, 1: streams}, state)
        ),
        STEP: export(StepProgram(model), (tokens[0], start), dynamic_shapes=({0: streams}, state)),
    }
    for program in found.values():
        _forget_origin(program)
    return found


def _forget_origin(program: "ExportedProgram") -> None:
    """Drop Python's stack at each node: the paths of this machine are no part of a model."""
    from torch.fx import GraphModule

    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)
