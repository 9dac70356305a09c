"""What a recurrent layer is: the shape legend, the state, and the `Cell` base class.

Shape legend, used in every signature (time-major):

    T  time steps            B  streams (batch)        V  vocabulary
    E  embedding size        H  hidden size            I  input size of a layer (E or H below)
    G  gates of a cell       F  feature size entering the head       N = T·B

The recurrent state is an argument and a result, never a buffer of a module: per layer a dict of
named tensors with B first. So any cell fits, and a slice over streams is one index.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lm.models.kernels.deferred import Deferred
from lm.models.kernels.products import Prepare, can_pack, packed_product, plain_product
from lm.models.weights import KEEP_H, PreparedWeights, Weights, input_product
from lm.runtime.compute import Compute, Kernels

LayerState = dict[str, Tensor]
State = list[LayerState]
# All steps of a window: (x, state, weights) → (y, state).
Sequence = Callable[[Tensor, LayerState, Weights], tuple[Tensor, LayerState]]

# About a window: a kernel that prepares the matrix first earns it back over the steps.
_STEPS_TO_MEASURE = 32


def detach(state: State) -> State:
    """The same state, cut from the graph: what truncated back-propagation carries over."""
    return [{name: tensor.detach() for name, tensor in layer.items()} for layer in state]


def slice_streams(state: State, streams: slice) -> State:
    """The state of a slice of the streams."""
    return [{name: tensor[streams] for name, tensor in layer.items()} for layer in state]


def join_streams(parts: list[State]) -> State:
    """The inverse of `slice_streams`: states of consecutive slices as one."""
    return [
        {name: torch.cat([part[k][name] for part in parts]) for name in layer}
        for k, layer in enumerate(parts[0])
    ]


class Cell(nn.Module):
    """One recurrent layer: parameters, the equations (`step`), fast ways over time (`kernels`).

    A cell of your own needs `step` and `state_names`; `sequence` then loops over it. Both take the
    weights as an argument (`self.weights()` unless something replaced them), so that weight drop
    and low precision need no re-registration of parameters. The state named `h` is the output.

    Products happen in the dtype of the weight matrices; the state keeps its own.

    Attributes:
        state_names: names of the state's tensors, each [B, H] unless `state_sizes` says otherwise;
            one of them is `h`.
        mixed_precision: the cell can compute with matrices in bf16 and all else in float32.
        hoists_input: `step` uses x in `input_product` only, so that `stepwise` may compute that
            for all steps at once.
        masks_state: state dropout acts in `step`, by `recurrent_product` or `keep_state`.
        gate_rows: names of the gates in the order of their rows in the recurrent matrices; a cell
            without says nothing of them apart.
        retention: the internal that is the share of its memory which a unit keeps in a step.
        compute: where, and by which kernels.
    """

    state_names: ClassVar[tuple[str, ...]] = ("h",)
    mixed_precision: ClassVar[bool] = False
    hoists_input: ClassVar[bool] = False
    masks_state: ClassVar[bool] = False
    gate_rows: ClassVar[tuple[str, ...]] = ()
    retention: ClassVar[str | None] = None

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.compute = Compute()

    @property
    def output_size(self) -> int:
        """Size of y and of the state `h`."""
        return self.hidden_size

    @property
    def state_sizes(self) -> dict[str, int]:
        """Size of each tensor of the state."""
        return dict.fromkeys(self.state_names, self.hidden_size)

    @property
    def learned_states(self) -> tuple[str, ...]:
        """The tensors of the state that `initial_state=learned` may learn."""
        return tuple(self.state_sizes)

    @property
    def recurrent_matrices(self) -> list[str]:
        """The weights that multiply the state, which weight drop acts upon."""
        return [name for name in self.weights() if name.startswith("weight_hh")]

    def weights(self) -> dict[str, Tensor]:
        """The layer's own parameters by name."""
        return dict(self.named_parameters(recurse=False))

    @abstractmethod
    def step(
        self, x: Float[Tensor, "B I"], state: LayerState, weights: Weights
    ) -> tuple[LayerState, LayerState]:
        """One time step, written like the equations.

        Returns:
            the new state, and the internals by name (gates and candidates, each [B, H]).
        """

    def kernels(self, weights: Weights) -> dict[str, Sequence]:
        """Fast ways over a window by name, those that can run with these weights; none by default.

        The one called `torch` is torch's own. Each equals `reference` in value and gradient.
        """
        return {}

    def sequence(
        self, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        """All steps of a window. Equals a loop over `step` in value and gradient."""
        return self._pick(x, state, weights)(x, state, weights)

    def reference(
        self, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        """The loop over `step` that every kernel is tested against."""
        outputs = []
        for x_t in x:
            state, _ = self.step(x_t, state, weights)
            outputs.append(state["h"])
        return torch.stack(outputs), state

    def loops(self, weights: Weights) -> dict[str, Sequence]:
        """The loop over `step` with its products prepared: the kernels of a cell that has no own.

        For cells whose products all go through `product`, `input_product` or `recurrent_product`.
        """
        like = next(weight for weight in weights.values() if weight.ndim > 1)
        packed = {"packed": packed_product} if can_pack(like) else {}
        ways = {**packed, "plain": plain_product}
        return {name: partial(self.stepwise, prepare) for name, prepare in ways.items()}

    def stepwise(
        self, prepare: Prepare, x: Float[Tensor, "T B I"], state: LayerState, weights: Weights
    ) -> tuple[Float[Tensor, "T B H"], LayerState]:
        """`reference`, with input products hoisted where that can be, and weight gradients of the
        window in one product each.
        """
        if self.hoists_input:
            x = input_product(x, weights)
            weights = {n: w for n, w in weights.items() if n not in ("weight_ih", "bias_ih")}
        deferred = {
            name: Deferred(weight, prepare, x.shape[1])
            for name, weight in weights.items()
            if weight.ndim > 1 and name != KEEP_H
        }
        y, state = self.reference(x, state, PreparedWeights(weights, deferred))
        for matrix in deferred.values():
            matrix.close()
        return y, state

    def reset_bias(self, draws: Callable[[str], Generator]) -> None:
        """Overrule the biases after initialisation (forget gate, chrono); nothing by default."""

    def _pick(self, x: Tensor, state: LayerState, weights: Weights) -> Sequence:
        """The kernel that `compute.kernels` asks for, measured where it asks for the fastest."""
        wanted = self.compute.kernels
        kernels = self.loops if KEEP_H in weights else self.kernels
        ways = {} if wanted is Kernels.reference else kernels(weights)
        if wanted is Kernels.torch:
            return ways.get("torch", self.reference)
        if wanted is Kernels.fast and len(ways) > 1:
            ways.pop("torch", None)
        if len(ways) < 2:
            return next(iter(ways.values()), self.reference)
        matrix = next(weight for weight in weights.values() if weight.ndim > 1)
        training = torch.is_grad_enabled()
        question = (
            f"{type(self).__name__} {self.input_size} {self.hidden_size} streams {x.shape[1]} "
            f"{matrix.dtype} {'training' if training else 'evaluation'} of {', '.join(ways)}"
        )
        head = x[:_STEPS_TO_MEASURE]
        trials = {name: partial(_trial, way, head, state, weights) for name, way in ways.items()}
        return ways[self.compute.choices.fastest(question, trials)]


def _trial(way: Sequence, x: Tensor, state: LayerState, weights: Weights) -> None:
    """What a training step does with a kernel (without gradients: what evaluation does)."""
    training = torch.is_grad_enabled()
    copies = {name: w.detach().requires_grad_(training) for name, w in weights.items()}
    fixed = {name: tensor.detach() for name, tensor in state.items()}
    y, _ = way(x.detach().requires_grad_(training), fixed, copies)
    if training:
        y.sum().backward()  # type: ignore[no-untyped-call]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def add_parameters(cell: Cell, *, num_gates: int, num_biases: int) -> None:
    """Register PyTorch's parameter set: weight_ih [G·H, I], weight_hh [G·H, H], bias_ih, bias_hh.

    One bias is `bias_ih` alone. Two are what PyTorch and cuDNN have; their sum acts, so that under
    SGD the effective bias moves at twice the learning rate.
    """
    rows = num_gates * cell.hidden_size
    cell.weight_ih = nn.Parameter(torch.empty(rows, cell.input_size))
    cell.weight_hh = nn.Parameter(torch.empty(rows, cell.hidden_size))
    for name in ("bias_ih", "bias_hh")[:num_biases]:
        cell.register_parameter(name, nn.Parameter(torch.empty(rows)))
