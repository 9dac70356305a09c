"""Initialisation per part of the model, by name, each drawn from a generator of its own."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from lm import checks
from lm.errors import ConfigError
from lm.models.base import Cell
from lm.runtime.randomness import generator


class Scheme(Enum):
    """How a tensor is filled."""

    # PyTorch's: embedding N(0, 1), cells U(±1/√H), output U(±1/√F); a tied embedding N(0, 1/E)
    default = "default"
    uniform = "uniform"  # U(−scale, scale)
    normal = "normal"  # N(0, scale²)
    xavier = "xavier"  # U(±scale·√(6 / (fan_in + fan_out))), per gate (Glorot & Bengio 2010)
    orthogonal = "orthogonal"  # scale × a random orthogonal matrix, per gate (Saxe et al. 2014)
    identity = "identity"  # scale × the identity, per gate (IRNN: Le, Jaitly & Hinton 2015)
    zeros = "zeros"
    unigram = "unigram"  # the output bias: log of each token's share of the training text


# Normal numbers are drawn in groups of so many.
_GROUP = 16
_BLOCK_ROWS = 1 << 12

_SCALES = {
    Scheme.uniform: 0.1,
    Scheme.normal: 0.1,
    Scheme.xavier: 1.0,
    Scheme.orthogonal: 1.0,
    Scheme.identity: 1.0,
}
"""The scale where none is set, of those schemes that have one."""


@dataclass(kw_only=True, slots=True)
class PartInit:
    """How one part of the model is filled.

    Attributes:
        kind: `default` is PyTorch's; `uniform` U(−scale, scale); `normal` N(0, scale²); `xavier`,
            `orthogonal` and `identity` act per gate; `unigram` is of the output bias alone: the log
            of each token's share of the training text.
        scale: bound, standard deviation or gain; None is 0.1 for `uniform` and `normal`, 1 for
            `xavier`, `orthogonal` and `identity`, and the others have none.
    """

    kind: Scheme = Scheme.default
    scale: float | None = None

    def __post_init__(self) -> None:
        checks.positive("model.init.*.scale", self.scale)


@dataclass(kw_only=True, slots=True)
class InitConfig:
    """How the parts of a model are filled, by name.

    Attributes:
        embedding: the word vectors.
        input: the cells' matrices that act on the layer below.
        recurrent: the cells' matrices that act on the state.
        bias: the cells' biases.
        output: the matrices of the output layer.
        output_bias: its bias.
    """

    # Inputs of unit variance: with ±0.1 the first hundreds of steps learn little but frequencies.
    embedding: PartInit = field(default_factory=PartInit)
    input: PartInit = field(default_factory=lambda: PartInit(kind=Scheme.xavier))
    recurrent: PartInit = field(default_factory=lambda: PartInit(kind=Scheme.orthogonal))
    bias: PartInit = field(default_factory=lambda: PartInit(kind=Scheme.zeros))
    output: PartInit = field(default_factory=lambda: PartInit(kind=Scheme.uniform))
    output_bias: PartInit = field(default_factory=lambda: PartInit(kind=Scheme.zeros))

    def __post_init__(self) -> None:
        for part in dataclasses.fields(self):
            init = getattr(self, part.name)
            if init.kind not in _SCALES:
                checks.no_effect(
                    f"model.init.{part.name}",
                    init,
                    ["scale"],
                    f"kind={init.kind.name} has none",
                    f"Set model.init.{part.name}.kind=uniform or normal",
                )
        matrix_only = (Scheme.xavier, Scheme.orthogonal, Scheme.identity)
        for name in ("bias", "output_bias"):
            kind = getattr(self, name).kind
            if kind in matrix_only:
                raise ConfigError(
                    f"model.init.{name}.kind must not be {kind.name}: a bias is not a matrix",
                    f"Set model.init.{name}.kind=zeros, uniform, normal or default.",
                )
        for name in ("embedding", "input", "recurrent", "bias", "output"):
            if getattr(self, name).kind is Scheme.unigram:
                raise ConfigError(
                    f"model.init.{name}.kind must not be unigram: only the output bias has a token",
                    "Set model.init.output_bias.kind=unigram.",
                )
        for name in ("embedding", "input", "output"):
            if getattr(self, name).kind is Scheme.identity:
                raise ConfigError(
                    f"model.init.{name}.kind must not be identity: only recurrent is square",
                    f"Set model.init.{name}.kind=xavier, or identity for model.init.recurrent.",
                )


def _xavier(block: Tensor, scale: float, draws: Generator) -> None:
    bound = scale * math.sqrt(6.0 / (block.shape[0] + block.shape[1]))
    block.uniform_(-bound, bound, generator=draws)


def _orthogonal(block: Tensor, scale: float, draws: Generator) -> None:
    rows, columns = block.shape
    flat = torch.randn(max(rows, columns), min(rows, columns), generator=draws)
    q, r = torch.linalg.qr(flat)
    # The sign makes the distribution uniform over orthogonal matrices (Mezzadri 2007).
    q = q * r.diagonal().sign()
    block.copy_(q.mul(scale) if rows >= columns else q.T.mul(scale))


def _identity(block: Tensor, scale: float, draws: Generator) -> None:
    block.copy_(torch.eye(*block.shape).mul(scale))


_PER_GATE: dict[Scheme, Callable[[Tensor, float, Generator], None]] = {
    Scheme.xavier: _xavier,
    Scheme.orthogonal: _orthogonal,
    Scheme.identity: _identity,
}


@torch.no_grad()
def fill(
    tensor: Tensor,
    part: PartInit,
    draws: Generator,
    *,
    default: Callable[[Tensor, Generator], object],
    num_gates: int = 1,
    rows: tuple[range, int] | None = None,
) -> None:
    """Fill a tensor in place; gates are stacked along the first dimension.

    Args:
        default: what PyTorch does for this part, used for `Scheme.default`.
        rows: which of how many rows these are: they get the numbers that they would have if all
            rows were filled. None is all.
    """
    if rows is not None:
        _fill_some(tensor, *rows, partial(fill, part=part, draws=draws, default=default))
        return
    scale = part.scale or _SCALES.get(part.kind, 1.0)
    if part.kind is Scheme.zeros:
        tensor.zero_()
    elif part.kind is Scheme.uniform:
        tensor.uniform_(-scale, scale, generator=draws)
    elif part.kind is Scheme.normal:
        tensor.normal_(0.0, scale, generator=draws)
    elif part.kind is Scheme.default:
        default(tensor, draws)
    else:
        for gate in tensor.chunk(num_gates):
            _PER_GATE[part.kind](gate, scale, draws)


def _fill_some(tensor: Tensor, own: range, count: int, fill: partial[None]) -> None:
    """Draw all rows, a block at a time, and keep our own.

    Numbers are drawn one after the other, normal ones in groups of 16, so that blocks of rows get
    what they get in one go. A scheme that acts on the matrix needs it whole.
    """
    rest = tensor.shape[1:]
    by_rows = {Scheme.zeros, Scheme.uniform, Scheme.normal, Scheme.default}
    whole = fill.keywords["part"].kind not in by_rows or math.prod(rest) < _GROUP
    step = count if whole else _BLOCK_ROWS
    for begin in range(0, count, step):
        block = tensor.new_empty(min(step, count - begin), *rest)
        fill(block)
        low, high = max(begin, own.start), min(begin + len(block), own.stop)
        if low < high:
            tensor[low - own.start : high - own.start] = block[low - begin : high - begin]


def uniform_by_size(size: int) -> Callable[[Tensor, Generator], object]:
    """PyTorch's default for cells and linear layers: U(±1/√size)."""
    bound = 1.0 / math.sqrt(size)
    return lambda tensor, draws: tensor.uniform_(-bound, bound, generator=draws)


def chrono_bias(size: int, longest: int, draws: Generator) -> Tensor:
    """log(u), u ~ U(1, longest − 1): memory times spread over the lags up to `longest`.

    Source: Tallec & Ollivier 2018, Can recurrent neural networks warp time?, equation 16.
    """
    return torch.empty(size).uniform_(1.0, longest - 1.0, generator=draws).log_()


def initialise_embedding(
    embedding: Float[Tensor, "V E"],
    config: InitConfig,
    seed: int,
    *,
    tied: bool,
    rows: tuple[range, int] | None = None,
) -> None:
    """Fill the embedding from the generator named after it.

    PyTorch's default N(0, 1) is for inputs; as the output's matrix it gives logits of variance
    |h|², and a first loss of 20 nats or more.
    """
    std = 1.0 / math.sqrt(embedding.shape[1]) if tied else 1.0
    fill(
        embedding.data,
        config.embedding,
        generator(seed, 0, "init.embedding"),
        default=lambda tensor, draws: tensor.normal_(0.0, std, generator=draws),
        rows=rows,
    )


def initialise_cell(cell: Cell, config: InitConfig, seed: int, site: str) -> None:
    """A cell's own parameters by name: `bias*`, `weight_hh*` (recurrent), other matrices are input.

    Other vectors (gains, peepholes) and the parameters of modules inside keep what the cell gave
    them.
    """
    for name, parameter in cell.named_parameters(recurse=False):
        if parameter.ndim < 2 and not name.startswith("bias"):
            continue
        part = config.input
        if name.startswith("bias"):
            part = config.bias
        elif name.startswith("weight_hh"):
            part = config.recurrent
        fill(
            parameter.data,
            part,
            generator(seed, 0, f"{site}.{name}"),
            default=uniform_by_size(cell.hidden_size),
            num_gates=max(1, parameter.shape[0] // cell.hidden_size),
        )
    cell.reset_bias(lambda name: generator(seed, 0, f"{site}.{name}"))
