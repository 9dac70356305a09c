"""A model advanced one token at a time, for generation.

`RecurrentModel.features` prepares its kernels anew in each window, which is most of the work when
the window is one token. Here what stays the same is prepared once: weights joined and laid out
for products with few rows, biases summed, buffers allocated. The numbers are those of `features`
and of the head, up to rounding.
"""

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm.models.base import Cell, LayerState, State
from lm.models.gru import GRU
from lm.models.head import SoftmaxHead
from lm.models.kernels.few_rows import FewRowsLinear
from lm.models.language_model import LanguageModel
from lm.models.lstm import LSTM
from lm.models.recurrent import RecurrentModel
from lm.models.rnn import RNN
from lm.models.weights import Weights, total_bias
from lm.runtime.compute import Kernels

# The input products of the whole vocabulary, in bytes.
_LARGEST_TABLE = 64 * 2**20


@runtime_checkable
class Advancing(Protocol):
    """Streams that are generated a token at a time."""

    def logits(self) -> Float[Tensor, "B V"]:
        """Of the next token, not normalised."""

    def read(self, tokens: Int[Tensor, " B"]) -> None:
        """Advance every stream by its token."""


@torch.no_grad()
def stepper_after(model: LanguageModel, prompt: Int[Tensor, " T"], num_streams: int) -> Advancing:
    """Streams that have all read the prompt (once); the fastest way that this model has."""
    if not isinstance(model, RecurrentModel) or not Stepper.suits(model):
        return _AnyModel(model, prompt, num_streams)
    _, state = model.features(prompt[:, None])
    return Stepper(model, _spread(state, num_streams))


def _spread(state: State, num_streams: int) -> State:
    """One stream's state for each of several."""
    return [
        {name: tensor.expand(num_streams, *tensor.shape[1:]) for name, tensor in layer.items()}
        for layer in state
    ]


class _AnyModel:
    """A model that nothing is known of but its `log_prob`."""

    def __init__(self, model: LanguageModel, prompt: Tensor, num_streams: int) -> None:
        self._model = model
        # All words' probabilities are of interest after the last token only.
        before, last = prompt[:-1, None], prompt[-1:, None]
        state = model(before, prompt[1:, None]).state if len(before) else None
        log_prob, state = model.log_prob(last, state)
        self._logits, self._state = (
            log_prob[-1].expand(num_streams, -1),
            _spread(state, num_streams),
        )

    def logits(self) -> Float[Tensor, "B V"]:
        return self._logits

    @torch.no_grad()
    def read(self, tokens: Int[Tensor, " B"]) -> None:
        log_prob, self._state = self._model.log_prob(tokens[None], self._state)
        self._logits = log_prob[0]


class _Layer:
    """One cell with its state, which a step overwrites.

    Args:
        operand: a view that holds [x_t, h_{t−1}] side by side; what lies below the layer writes x.
    """

    def __init__(self, cell: Cell, operand: Float[Tensor, "B X"], state: LayerState) -> None:
        self.operand = operand
        self.x, self.h = torch.split(operand, [cell.input_size, cell.output_size], 1)
        self.h.copy_(state["h"])
        self.prepare(cell, state)

    @abstractmethod
    def prepare(self, cell: Any, state: LayerState) -> None:
        """Weights and buffers."""

    @abstractmethod
    def advance(self) -> None:
        """One token further."""

    def state(self) -> LayerState:
        """By the cell's names."""
        return {"h": self.h}


class _AnyCell(_Layer):
    """A cell that nothing is known of but its `step`."""

    def prepare(self, cell: Cell, state: LayerState) -> None:
        self.step, self.weights, self.carried = cell.step, cell.weights(), state

    def advance(self) -> None:
        self.carried, _ = self.step(self.x, self.carried, self.weights)
        self.h.copy_(self.carried["h"])

    def state(self) -> LayerState:
        return self.carried


class _Gated(_Layer):
    """A cell whose input product W_ih x + b can be looked up by token.

    Attributes:
        gates: where that product goes; x itself, once it is looked up.
    """

    weight_ih: Tensor
    bias: Tensor | None
    gates: Tensor
    tabulated = False

    def tabulate(self, embedding: Float[Tensor, "V E"]) -> Float[Tensor, "V G"]:
        """The input products of the whole vocabulary; from now on x is one of them."""
        self.tabulated, self.x = True, self.gates
        return nn.functional.linear(embedding, self.weight_ih, self.bias)


class _Joined(_Gated):
    """A cell of W_ih x + W_hh h + b, which is one product as long as x is no table's."""

    def join(self, weights: Weights, order: Int[Tensor, " G"] | slice) -> None:
        """Prepare the product, its rows in this order."""
        bias = total_bias(weights)
        self.bias = None if bias is None else bias[order]
        self.weight_ih, self.weight_hh = weights["weight_ih"][order], weights["weight_hh"][order]
        self.gates = self.h.new_empty(len(self.h), len(self.weight_hh))
        joined = torch.cat([self.weight_ih, self.weight_hh], 1)
        self.product = FewRowsLinear(joined, self.bias, len(self.h))

    def tabulate(self, embedding: Float[Tensor, "V E"]) -> Float[Tensor, "V G"]:
        self.product = FewRowsLinear(self.weight_hh, None, len(self.h))
        return super().tabulate(embedding)

    def sum_products(self) -> None:
        """Into `gates`."""
        if self.tabulated:
            self.gates.add_(self.product(self.h))
        else:
            self.product.into(self.gates, self.operand)


class _LSTM(_Joined):
    """The gates in the order i, f, o, g: one sigmoid for three of them."""

    def prepare(self, cell: LSTM, state: LayerState) -> None:
        size = cell.hidden_size
        i, f, g, o = torch.split(torch.arange(4 * size, device=self.h.device), size)
        self.join(cell.weights(), torch.cat([i, f, o, g]))
        self.sigmoids = self.gates[:, : 3 * size]
        self.i, self.f, self.o, self.g = torch.split(self.gates, size, 1)
        self.c = state["c"].clone()
        self.squashed = torch.empty_like(self.c)

    def advance(self) -> None:
        self.sum_products()
        self.sigmoids.sigmoid_()
        self.g.tanh_()
        self.c.mul_(self.f).addcmul_(self.i, self.g)
        torch.mul(self.o, torch.tanh(self.c, out=self.squashed), out=self.h)

    def state(self) -> LayerState:
        return {"h": self.h, "c": self.c}


class _RNN(_Joined):
    """σ of the joined product."""

    def prepare(self, cell: RNN, state: LayerState) -> None:
        self.join(cell.weights(), slice(None))
        self.apply = getattr(torch, f"{cell.nonlinearity.value}_")

    def advance(self) -> None:
        self.sum_products()
        self.h.copy_(self.apply(self.gates))


class _GRU(_Gated):
    """The candidate needs U_n h apart from W_n x, so the two products stay apart."""

    def prepare(self, cell: GRU, state: LayerState) -> None:
        weights, size, num_streams = cell.weights(), cell.hidden_size, len(self.h)
        self.weight_ih, self.bias = weights["weight_ih"], weights.get("bias_ih")
        self.of_x_product = FewRowsLinear(self.weight_ih, self.bias, num_streams)
        self.of_h_product = FewRowsLinear(weights["weight_hh"], weights.get("bias_hh"), num_streams)
        self.gates = self.h.new_empty(num_streams, 3 * size)
        self.of_h = torch.empty_like(self.gates)
        self.r_z, self.r_z_of_h = self.gates[:, : 2 * size], self.of_h[:, : 2 * size]
        self.r, self.z, self.n = torch.split(self.gates, size, 1)
        self.n_of_h = self.of_h[:, 2 * size :]

    def advance(self) -> None:
        if not self.tabulated:
            self.of_x_product.into(self.gates, self.x)
        self.of_h_product.into(self.of_h, self.h)
        self.r_z.add_(self.r_z_of_h).sigmoid_()
        self.n.addcmul_(self.r, self.n_of_h).tanh_()
        torch.lerp(self.n, self.h, self.z, out=self.h)  # (1 − z) n + z h


# By exact type: what derives from a built-in cell may have another `step`.
_LAYERS: dict[type[Cell], type[_Layer]] = {LSTM: _LSTM, RNN: _RNN, GRU: _GRU}


class Stepper:
    """All streams of a generation, a token at a time.

    It holds copies of the weights: one made before an update of the model does not see it.

    Args:
        state: after what was read so far; it is copied.
    """

    @staticmethod
    def suits(model: RecurrentModel) -> bool:
        """Whether the model is one of those that this class knows."""
        return model.is_plain_stack and type(model.head) is SoftmaxHead

    @torch.no_grad()
    def __init__(self, model: RecurrentModel, state: State) -> None:
        cells, num_streams = model.cells, len(state[0]["h"])
        self.embedding = model.embedding.weight.detach()
        # x_t and the h of every layer side by side: a layer's operand [x, h] is a slice of it, in
        # which the layer below has left its output.
        sizes = [self.embedding.shape[1], *(cell.output_size for cell in cells)]
        joined = self.embedding.new_empty(num_streams, sum(sizes))
        columns = torch.split(joined, sizes, 1)
        self.features = columns[-1]
        self.num_read = 0
        self.layers: list[_Layer] = []
        begin = 0
        for k, cell in enumerate(cells):
            operand = joined[:, begin : begin + sizes[k] + sizes[k + 1]]
            reference = cell.compute.kernels is Kernels.reference
            layer = _AnyCell if reference else _LAYERS.get(type(cell), _AnyCell)
            self.layers.append(layer(cell, operand, state[k]))
            begin += sizes[k]
        head = model.head
        assert isinstance(head, SoftmaxHead)
        self.projection = (
            None if head.projection is None else FewRowsLinear(head.projection, None, num_streams)
        )
        self.output = FewRowsLinear(head.weight, head.bias, num_streams)

    @property
    def state(self) -> State:
        """The state now; the next step overwrites it."""
        return [layer.state() for layer in self.layers]

    @torch.no_grad()
    def logits(self) -> Float[Tensor, "B V"]:
        """Of the next token, not normalised."""
        projected = self.features if self.projection is None else self.projection(self.features)
        return self.output(projected)

    @torch.no_grad()
    def read(self, tokens: Int[Tensor, " B"]) -> None:
        """Advance every stream by its token."""
        first = self.layers[0]
        torch.index_select(self.embedding, 0, tokens, out=first.x)
        for layer in self.layers:
            layer.advance()
        self.num_read += len(tokens)
        if isinstance(first, _Gated) and not first.tabulated and self._table_pays(first):
            self.embedding = first.tabulate(self.embedding)

    def _table_pays(self, first: _Gated) -> bool:
        """Once as many tokens were read as the vocabulary has; so it at most doubles the work."""
        vocabulary = self.embedding
        size = len(vocabulary) * first.gates.shape[1] * vocabulary.element_size()
        return self.num_read >= len(vocabulary) and size <= _LARGEST_TABLE
