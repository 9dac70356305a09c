"""The configuration of recurrent models: sizes, connections, head, regularisers, and what excludes
what.
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lm import checks
from lm.errors import ConfigError
from lm.models.adaptive import AdaptiveConfig, AdaptiveHead
from lm.models.base import Cell
from lm.models.budget import largest_within, parse_count
from lm.models.dropout import DropoutConfig
from lm.models.head import Head, SoftmaxHead
from lm.models.init import InitConfig, Scheme, initialise_cell, initialise_embedding
from lm.models.language_model import ModelConfig, parameter_counts
from lm.models.mixture import MixtureConfig, MixtureHead
from lm.models.penalties import PenaltyConfig
from lm.models.recurrent import RecurrentModel
from lm.models.sampled import SampledConfig
from lm.models.vocabulary_parallel import split_vocabulary
from lm.runtime.processes import ALONE, Processes
from lm.runtime.randomness import derive_seed, generator

# Far above all that is published; below them no product of sizes leaves 64 bits.
MAX_SIZE = 1 << 20
MAX_LAYERS = 1000


class InitialState(Enum):
    """What the recurrent state is before the first token."""

    zero = "zero"
    learned = "learned"


class HeadKind(Enum):
    """From features to probabilities."""

    softmax = "softmax"
    adaptive = "adaptive"
    mixture = "mixture"


@dataclass(kw_only=True, slots=True)
class RecurrentConfig(ModelConfig):
    """What every recurrent model has; a cell's own config adds its fields and builds the cell.

    Attributes:
        embedding_size: E; None is the first layer's H.
        hidden_size: H of every layer, unless `layer_sizes` names one size per layer.
        num_layers: recurrent layers.
        layer_sizes: H of each layer, from below, instead of `hidden_size` and `num_layers`.
        parameters: a budget such as `24M`; sets `hidden_size` to the largest that fits it.
        residual: a layer's input is added to its output, from the second layer on (He et al. 2016;
            Wu et al. 2016, section 3.1).
        skip: the head sees the sum of all layers' outputs (Graves 2013; Melis et al. 2018).
        head: how features become probabilities: one softmax, an adaptive one with clusters of rare
            words, or a mixture of several.
        tied: the output weight is the embedding's, through a projection where sizes differ.
        output_bias: the output layer has a bias.
        initial_state: the recurrent state before the first token: zero, or a learned parameter.
        state_reset: probability that a stream begins a window of training at its initial state, so
            that the model learns to start without a past.
    """

    transient: ClassVar[frozenset[str]] = frozenset(
        {"dropout", "init", "sampled", "penalty", "state_reset", "parameters"}
    )

    embedding_size: int | None = 256
    hidden_size: int = 512
    num_layers: int = 1
    layer_sizes: list[int] | None = None
    parameters: str | None = None
    residual: bool = False
    skip: bool = False
    head: HeadKind = HeadKind.softmax
    tied: bool = False
    output_bias: bool = True
    initial_state: InitialState = InitialState.zero
    state_reset: float = 0.0
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    sampled: SampledConfig = field(default_factory=SampledConfig)
    init: InitConfig = field(default_factory=InitConfig)

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "num_layers"):
            checks.at_least(f"model.{name}", getattr(self, name), 1)
            most = MAX_LAYERS if name == "num_layers" else MAX_SIZE
            checks.at_most(f"model.{name}", getattr(self, name), most)
        checks.fraction("model.state_reset", self.state_reset)
        self._check_sizes()
        self._check_connections()
        self._check_head()
        self._check_tying()
        self._check_recurrent_dropout()

    def _check_sizes(self) -> None:
        if self.parameters is not None:
            parse_count("model.parameters", self.parameters)
        if self.layer_sizes is None:
            return
        checks.at_least("len(model.layer_sizes)", len(self.layer_sizes), 1)
        checks.at_most("len(model.layer_sizes)", len(self.layer_sizes), MAX_LAYERS)
        if self.num_layers not in (1, len(self.layer_sizes)):
            raise ConfigError(
                f"model.num_layers={self.num_layers} contradicts model.layer_sizes="
                f"{self.layer_sizes}",
                "Set one of them.",
            )
        for size in self.layer_sizes:
            checks.at_least("model.layer_sizes", size, 1)
            checks.at_most("model.layer_sizes", size, MAX_SIZE)
        if self.parameters is not None:
            raise ConfigError(
                f"model.parameters={self.parameters} sets model.hidden_size, which "
                f"model.layer_sizes={self.layer_sizes} overrules",
                "Set one of them.",
            )

    def _check_connections(self) -> None:
        for name in ("residual", "skip"):
            if getattr(self, name) and len(set(self.sizes)) > 1:
                raise ConfigError(
                    f"model.{name}=true adds the layers' outputs, whose sizes differ: {self.sizes}",
                    f"Set model.layer_sizes=null, or model.{name}=false.",
                )
            if getattr(self, name) and len(self.sizes) == 1:
                raise ConfigError(
                    f"model.{name}=true needs a second layer", "Set model.num_layers=2."
                )

    def _check_head(self) -> None:
        kind = self.head
        for name, other in (("adaptive", AdaptiveConfig()), ("mixture", MixtureConfig())):
            if kind.value != name and getattr(self, name) != other:
                raise ConfigError(
                    f"model.{name} is set, but model.head={kind.value}", f"Set model.head={name}."
                )
        only_softmax = {
            "model.sampled.words": self.sampled.words is not None,
            "model.init.output_bias.kind=unigram": self.init.output_bias.kind is Scheme.unigram,
            "model.penalty.label_smoothing": self.penalty.label_smoothing > 0,
        }
        for name, wanted in only_softmax.items():
            if wanted and kind is not HeadKind.softmax:
                raise ConfigError(
                    f"{name} is defined for one softmax over all words, not for "
                    f"model.head={kind.value}",
                    "Set model.head=softmax, or drop it.",
                )
        if self.penalty.label_smoothing and self.sampled.words is not None:
            raise ConfigError(
                "model.penalty.label_smoothing needs all words, model.sampled.words draws some",
                "Set model.sampled.words=null, or model.penalty.label_smoothing=0.",
            )
        if self.dropout.latent and kind is not HeadKind.mixture:
            raise ConfigError(
                "model.dropout.latent acts between the features and the softmaxes of a mixture",
                "Set model.head=mixture, or model.dropout.latent=0.",
            )

    def _check_tying(self) -> None:
        if not self.tied:
            return
        if self.head is HeadKind.adaptive and self.adaptive.divisor != 1:
            raise ConfigError(
                "model.tied=true shares word vectors of one size, and with "
                f"model.adaptive.divisor={self.adaptive.divisor:g} rare words have smaller ones",
                "Set model.adaptive.divisor=1, or model.tied=false.",
            )
        if self.head is HeadKind.mixture and self.mixture.size is not None:
            raise ConfigError(
                f"model.mixture.size={self.mixture.size} contradicts model.tied=true: tied word "
                "vectors have the embedding's size",
                "Set model.mixture.size=null, or model.tied=false.",
            )

    def _check_recurrent_dropout(self) -> None:
        if not (self.dropout.weights or self.dropout.state):
            return
        with torch.device("meta"):
            cell = self.build_cell(self.input_size, self.sizes[0])
        kind = type(cell).__name__
        if self.dropout.weights and not cell.recurrent_matrices:
            raise ConfigError(
                f"model.dropout.weights drops elements of recurrent matrices; {kind} has none",
                "Set model.dropout.weights=0; model.dropout.between acts between layers.",
            )
        if self.dropout.state and not cell.masks_state:
            raise ConfigError(
                f"model.dropout.state acts where h enters a recurrent product; {kind} has none",
                "Set model.dropout.state=0; model.dropout.between acts between layers.",
            )

    @property
    def sizes(self) -> list[int]:
        """H of each layer, from below."""
        return self.layer_sizes or [self.hidden_size] * self.num_layers

    @property
    def smallest_size(self) -> int:
        """The least H that the cell's other sizes allow."""
        return 1

    @property
    def input_size(self) -> int:
        """E."""
        return self.embedding_size or self.sizes[0]

    @property
    def needs_counts(self) -> bool:
        unigram = self.init.output_bias.kind is Scheme.unigram
        return self.sampled.words is not None or unigram or self.head is HeadKind.adaptive

    @abstractmethod
    def build_cell(self, input_size: int, hidden_size: int) -> Cell:
        """One layer of this model's cell, its parameters not yet filled."""

    def solved(self, vocab_size: int) -> "RecurrentConfig":
        """The configuration with the hidden size that its budget of parameters allows.

        Raises:
            ConfigError: not even one unit per layer fits.
        """
        if self.parameters is None:
            return self
        budget = parse_count("model.parameters", self.parameters)

        def at(size: int) -> "RecurrentConfig":
            return replace(self, hidden_size=size, parameters=None)

        def total(size: int) -> int:
            with torch.device("meta"):
                return parameter_counts(at(size).assemble(vocab_size))["total"]

        smallest = self.smallest_size
        return at(largest_within(budget, total, "model.parameters", smallest=smallest))

    def assemble(self, vocab_size: int) -> RecurrentModel:
        """The model with its parameters not yet filled."""
        # Given weights, nn.Embedding does not draw from the global generator.
        weight = torch.empty(vocab_size, self.input_size)
        embedding = nn.Embedding(vocab_size, self.input_size, _weight=weight)
        cells: list[Cell] = []
        for size in self.sizes:
            below = cells[-1].output_size if cells else self.input_size
            cells.append(self.build_cell(below, size))
        tied = embedding.weight if self.tied else None
        head = self._build_head(cells[-1].output_size, vocab_size, tied)
        return RecurrentModel(
            embedding,
            cells,
            head,
            residual=self.residual,
            skip=self.skip,
            learned_start=self.initial_state is InitialState.learned,
            dropout=self.dropout,
            penalty=self.penalty,
            state_reset=self.state_reset,
        )

    def _build_head(self, feature_size: int, vocab_size: int, tied: Tensor | None) -> Head:
        size, bias = (feature_size, vocab_size), self.output_bias
        if self.head is HeadKind.adaptive:
            return AdaptiveHead(*size, self.adaptive, tied=tied, bias=bias)
        if self.head is HeadKind.mixture:
            rate = self.dropout.latent
            return MixtureHead(*size, self.mixture, tied=tied, bias=bias, dropout=rate)
        smoothing = self.penalty.label_smoothing
        return SoftmaxHead(*size, tied=tied, bias=bias, smoothing=smoothing)

    def build(
        self,
        vocab_size: int,
        *,
        seed: int,
        counts: Int[Tensor, " V"] | None = None,
        processes: Processes = ALONE,
    ) -> RecurrentModel:
        """The model on the CPU, initialised from `seed` alone.

        Args:
            processes: split the words among them, so that none ever holds all.

        Raises:
            ConfigError: the words of such a model cannot be split.
        """
        config = self.solved(vocab_size)
        # A cell with modules of torch.nn inside draws from the global generator when it is made.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, 0, "init.modules"))
            model = config.assemble(vocab_size)
        model.sampler = self.sampled.build(counts)
        if not processes.alone:
            split_vocabulary(model, processes)
        initialise_embedding(
            model.embedding.weight, self.init, seed, tied=self.tied, rows=model.own_words
        )
        for k, cell in enumerate(model.cells):
            initialise_cell(cell, self.init, seed, f"init.layers.{k}")
        model.head.initialise(
            self.init, lambda name: generator(seed, 0, f"init.head.{name}"), counts
        )
        return model
