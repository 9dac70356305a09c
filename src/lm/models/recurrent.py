"""The recurrent model: `embedding → one-layer cells with dropout between → head`."""

from abc import abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm import checks
from lm.errors import ConfigError
from lm.models.base import Cell, LayerState, State, Weights
from lm.models.dropout import DropoutConfig, dropout
from lm.models.embedding import TiedGradient, embed
from lm.models.head import SoftmaxHead
from lm.models.init import InitConfig, Scheme, initialise
from lm.models.language_model import LanguageModel, ModelConfig, Output
from lm.models.sampled import SampledConfig, Sampler
from lm.runtime.compute import Compute, Precision
from lm.runtime.randomness import Noise, derive_seed


class InitialState(Enum):
    """What the recurrent state is before the first token."""

    zero = "zero"
    learned = "learned"


@dataclass(kw_only=True, slots=True)
class RecurrentConfig(ModelConfig):
    """What every recurrent model has; a cell's own config adds its fields and builds the cell.

    Attributes:
        embedding_size: E.
        hidden_size: H of every layer, unless `layer_sizes` names one size per layer.
        tied: the output weight is the embedding's, through a projection where sizes differ.
        output_bias: the output layer has a bias.
    """

    transient: ClassVar[frozenset[str]] = frozenset({"dropout", "init", "sampled"})

    embedding_size: int = 256
    hidden_size: int = 512
    num_layers: int = 1
    layer_sizes: list[int] | None = None
    tied: bool = False
    output_bias: bool = True
    initial_state: InitialState = InitialState.zero
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    init: InitConfig = field(default_factory=InitConfig)
    sampled: SampledConfig = field(default_factory=SampledConfig)

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "num_layers"):
            checks.at_least(f"model.{name}", getattr(self, name), 1)
        if self.layer_sizes is not None:
            checks.at_least("len(model.layer_sizes)", len(self.layer_sizes), 1)
            if self.num_layers not in (1, len(self.layer_sizes)):
                raise ConfigError(
                    f"model.num_layers={self.num_layers} contradicts model.layer_sizes="
                    f"{self.layer_sizes}",
                    "Set one of them.",
                )
            for size in self.layer_sizes:
                checks.at_least("model.layer_sizes", size, 1)

    @property
    def sizes(self) -> list[int]:
        """H of each layer, from below."""
        return self.layer_sizes or [self.hidden_size] * self.num_layers

    @property
    def needs_counts(self) -> bool:
        return self.sampled.words is not None or self.init.output_bias.kind is Scheme.unigram

    @abstractmethod
    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        """One layer of this model's cell, its parameters not yet filled."""

    def build(
        self, vocab_size: int, *, seed: int, counts: Int[Tensor, " V"] | None = None
    ) -> "RecurrentModel":
        # A cell with modules of torch.nn inside draws from the global generator when it is made.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, 0, "init.modules"))
            model = RecurrentModel(self, vocab_size)
        initialise(model.embedding.weight, model.cells, model.head, self.init, seed, counts)
        model.sampler = self.sampled.build(counts)
        return model


class RecurrentModel(LanguageModel):
    """A recurrent language model; calling it is the only entry for training.

    Attributes:
        sampler: draws the words of a sampled softmax for each training step; None is the whole.
        sparse_gradients: the optimiser leaves words without a gradient alone, so that embeddings
            (and a sampled output layer) may give one for the words of a window only.
    """

    def __init__(self, config: RecurrentConfig, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self.rates = config.dropout
        sizes = config.sizes
        inputs = [config.embedding_size, *sizes[:-1]]
        # Given weights, nn.Embedding does not draw from the global generator.
        self.embedding = nn.Embedding(
            vocab_size, inputs[0], _weight=torch.empty(vocab_size, inputs[0])
        )
        self.layers = nn.ModuleList(map(config.build_cell, inputs, sizes))
        self.initial = nn.ParameterDict()
        if config.initial_state is InitialState.learned:
            for k, cell in enumerate(self.cells):
                for name in cell.state_names:
                    self.initial[f"{k}_{name}"] = nn.Parameter(torch.zeros(cell.hidden_size))
        tied = self.embedding.weight if config.tied else None
        self.head = SoftmaxHead(sizes[-1], vocab_size, tied=tied, bias=config.output_bias)
        self.compute = Compute()
        self.sampler: Sampler | None = None
        self.sparse_gradients = False

    @property
    def cells(self) -> list[Cell]:
        """The layers, typed."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def initial_state(self, num_streams: int) -> State:
        # Learned ones stay part of the graph.
        like = self.embedding.weight
        return [
            {
                name: self.initial[f"{k}_{name}"].expand(num_streams, -1)
                if f"{k}_{name}" in self.initial
                else like.new_zeros(num_streams, cell.hidden_size)
                for name in cell.state_names
            }
            for k, cell in enumerate(self.cells)
        ]

    def pass_on(self, compute: Compute) -> None:
        self.head.compute = compute
        for cell in self.cells:
            cell.compute = compute

    def forward(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        noise: Noise | None = None,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> Output:
        tied = TiedGradient() if self.head.tied else None
        features, state = self.features(tokens, state, noise=noise, resets=resets, tied=tied)
        flat = features.flatten(0, 1), targets.flatten()
        if torch.is_grad_enabled():
            sample = None
            if noise is not None and self.sampler is not None:
                sample = self.sampler.draw(noise, tokens.device)
            objective, nll = self.head.loss(
                *flat,
                dtype=self._products(noise),
                tied=tied,
                sample=sample,
                sparse=self._sparse_rows,
            )
        else:
            nll = self.head.nll(*flat)
            objective = nll.mean()
        return Output(objective=objective, nll=nll.view(targets.shape), state=state)

    def log_prob(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B V"], State]:
        features, state = self.features(tokens, state, resets=resets)
        return self.head.log_prob(features), state

    def features(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        noise: Noise | None = None,
        resets: Bool[Tensor, "T B"] | None = None,
        tied: TiedGradient | None = None,
    ) -> tuple[Float[Tensor, "T B F"], State]:
        """What enters the head, and the state after the window."""
        products = self._products(noise)
        initial = self.initial_state(tokens.shape[1])
        state = initial if state is None else state
        x = embed(tokens, self.embedding.weight, tied=tied, sparse=self._sparse_rows)
        x = dropout(x, self.rates.embedding, noise, "dropout.embedding", self.rates.locked)
        after: State = []
        for k, cell in enumerate(self.cells):
            if k:
                x = dropout(x, self.rates.between, noise, f"dropout.between.{k}", self.rates.locked)
            weights = cell.weights()
            if products is not None and cell.mixed_precision:
                weights = {n: w.to(products) if w.ndim > 1 else w for n, w in weights.items()}
            x, layer_state = run_cell(cell, x, state[k], weights, initial[k], resets)
            after.append(layer_state)
        return dropout(x, self.rates.output, noise, "dropout.output", self.rates.locked), after

    @property
    def _sparse_rows(self) -> bool:
        """Whether the embedding's gradient is sparse: a tied one is if the output layer's is."""
        return self.sparse_gradients and (not self.head.tied or self.sampler is not None)

    def _products(self, noise: Noise | None) -> torch.dtype | None:
        """The dtype of products: low in training only; None is the weights' own."""
        low = noise is not None and self._compute.precision is Precision.bf16
        return torch.bfloat16 if low else None


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
