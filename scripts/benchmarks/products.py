"""The arithmetic of a step, and how fast this machine does its products at the step's own shapes.

A product is counted where any implementation has it: per layer the input product of the whole
window, the recurrent product of every step, their two gradients each, and the same for the output
layer: 6 × (parameters in products) × tokens in all. The embedding is a look-up and not counted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.rows import TrainingRow

# Elements of the logits that are computed at a time, so that their buffer stays in reach.
_LOGITS = 8_000_000


@dataclass(frozen=True, slots=True)
class Product:
    """[rows, inner] × [inner, columns], done `count` times a step.

    Attributes:
        left_transposed, right_transposed: how the operands lie in memory: weights are
            [outputs, inputs], so forward products read the right one transposed and gradients of
            weights the left one.
    """

    rows: int
    inner: int
    columns: int
    count: float = 1
    left_transposed: bool = False
    right_transposed: bool = False

    @property
    def flop(self) -> float:
        return 2.0 * self.rows * self.inner * self.columns * self.count


def _linear(rows: int, inputs: int, outputs: int, count: float = 1) -> list[Product]:
    """A linear map, the gradient of its input, and that of its weight."""
    return [
        Product(rows, inputs, outputs, count, right_transposed=True),
        Product(rows, outputs, inputs, count),
        Product(outputs, rows, inputs, count, left_transposed=True),
    ]


def products(row: TrainingRow) -> list[Product]:
    """All products of a training step."""
    found = []
    size = row.embedding_size
    for _ in range(row.num_layers):
        gates = row.num_gates * row.hidden_size
        found += _linear(row.tokens, size, gates)
        forward, backward, _ = _linear(row.streams, row.hidden_size, gates, row.window)
        *_, weight = _linear(row.tokens, row.hidden_size, gates)
        found += [forward, backward, weight]
        size = row.hidden_size
    if row.tied and row.embedding_size != row.hidden_size:
        found += _linear(row.tokens, row.hidden_size, row.embedding_size)
        size = row.embedding_size
    columns = min(row.vocab_size, max(1, _LOGITS // row.tokens))
    return found + _linear(row.tokens, size, columns, row.vocab_size / columns)


def gigaflop(row: TrainingRow) -> float:
    """Of one training step."""
    return sum(product.flop for product in products(row)) / 1e9


class Floor:
    """A step that does nothing but its products."""

    def __init__(self, row: TrainingRow, dtype: torch.dtype, device: torch.device) -> None:
        draws = torch.Generator(device).manual_seed(1)

        def operand(rows: int, columns: int, transposed: bool) -> Tensor:
            shape = (columns, rows) if transposed else (rows, columns)
            values = torch.randn(shape, generator=draws, device=device).to(dtype)
            return values.t() if transposed else values

        self.products: list[tuple[int, Tensor, Tensor, Tensor]] = []
        for p in products(row):
            left = operand(p.rows, p.inner, p.left_transposed)
            right = operand(p.inner, p.columns, p.right_transposed)
            out = torch.empty(p.rows, p.columns, dtype=dtype, device=device)
            self.products.append((max(1, round(p.count)), left, right, out))
        flop = sum(2.0 * n * left.numel() * right.shape[1] for n, left, right, _ in self.products)
        # The slices of the output layer need not make up the vocabulary exactly.
        self.share = flop / (gigaflop(row) * 1e9)

    def run(self) -> None:
        """All of them once."""
        for times, left, right, out in self.products:
            for _ in range(times):
                torch.mm(left, right, out=out)
