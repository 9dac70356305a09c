"""The recurrent model: `embedding → one-layer cells with dropout between → head`."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm.models.assessment import Assessment
from lm.models.base import Cell, LayerState, State
from lm.models.dropout import DropoutConfig, drop_recurrent, drop_words, dropout
from lm.models.embedding import TiedGradient, embed
from lm.models.head import Head, SoftmaxHead
from lm.models.kernels.sharded import sharded_embed
from lm.models.language_model import LanguageModel, Output
from lm.models.layer import RunCell, run_cell
from lm.models.penalties import PenaltyConfig
from lm.models.sampled import Sampler
from lm.models.shard import SPLIT, Shard
from lm.models.weights import KEEP_H, Weights
from lm.runtime.compute import Compute, Precision
from lm.runtime.randomness import Noise


class RecurrentModel(LanguageModel):
    """A recurrent language model; calling it is the only entry for training.

    Args:
        learned_start: the state before the first token is learned; else it is zero.

    Attributes:
        residual, skip, dropout, penalty, state_reset: as in `RecurrentConfig`.
        sampler: draws the words of a sampled softmax for each training step; None is the whole.
        sparse_gradients: the optimiser leaves words without a gradient alone, so that embeddings
            (and a sampled output layer) may give one for the words of a window only.
        shard: the words whose rows this process has, where they are split over several; see
            `split_vocabulary`.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        cells: Sequence[Cell],
        head: Head,
        *,
        residual: bool = False,
        skip: bool = False,
        learned_start: bool = False,
        dropout: DropoutConfig,
        penalty: PenaltyConfig,
        state_reset: float = 0.0,
    ) -> None:
        super().__init__(embedding.num_embeddings)
        self.embedding = embedding
        self.layers = nn.ModuleList(cells)
        self.initial = nn.ParameterDict()
        if learned_start:
            for k, cell in enumerate(cells):
                for name in cell.learned_states:
                    start = torch.zeros(cell.state_sizes[name])
                    self.initial[f"{k}_{name}"] = nn.Parameter(start)
        self.head = head
        self.residual, self.skip = residual, skip
        self.rates, self.penalty, self.state_reset = dropout, penalty, state_reset
        self.compute = Compute()
        self.sampler: Sampler | None = None
        self.sparse_gradients = False
        self.shard: Shard | None = None

    @property
    def cells(self) -> list[Cell]:
        """The layers, typed."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def size_of(self, name: str, parameter: nn.Parameter) -> int:
        if self.shard is None or name not in SPLIT:
            return parameter.numel()
        return parameter.numel() // len(parameter) * self.vocab_size

    @property
    def own_words(self) -> tuple[range, int] | None:
        """The words whose rows are here, of how many; None is all."""
        return None if self.shard is None else (self.shard.rows, self.vocab_size)

    @property
    def is_plain_stack(self) -> bool:
        """Each layer sees the output of the one below and nothing else, the head the last one's."""
        return not (self.residual or self.skip)

    def initial_state(self, num_streams: int) -> State:
        # Learned ones stay part of the graph.
        like = self.embedding.weight
        return [
            {
                name: self.initial[f"{k}_{name}"].expand(num_streams, -1)
                if f"{k}_{name}" in self.initial
                else like.new_zeros(num_streams, size)
                for name, size in cell.state_sizes.items()
            }
            for k, cell in enumerate(self.cells)
        ]

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), **dict(self.named_buffers())}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_tensors(tensors)
        self.head.check(tensors)

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
        raw, state = self._run(tokens, state, noise, resets, tied, run_cell)
        features = self._drop_output(raw, noise)
        flat = features.flatten(0, 1), targets.flatten()
        if not torch.is_grad_enabled():
            nll = self.head.nll(*flat)
            return Output(objective=nll.mean(), nll=nll.view(targets.shape), state=state)
        objective, nll = self._loss(*flat, noise, tied)
        penalty = None if noise is None else self.penalty.on_output(raw, features)
        if penalty is not None:
            objective = objective + penalty
        return Output(objective=objective, nll=nll.view(targets.shape), state=state)

    def _loss(
        self, features: Tensor, targets: Tensor, noise: Noise | None, tied: TiedGradient | None
    ) -> tuple[Tensor, Tensor]:
        """Objective and nll of flat features; the softmax of training may be sampled."""
        head, dtype = self.head, self._products(noise)
        if noise is None or self.sampler is None:
            return head.loss(features, targets, dtype=dtype, tied=tied, noise=noise)
        assert isinstance(head, SoftmaxHead)
        sample = self.sampler.draw(noise, features.device)
        return head.loss(
            features, targets, dtype=dtype, tied=tied, noise=noise, sample=sample,
            sparse=self._sparse_rows,
        )  # fmt: skip

    @torch.no_grad()
    def idle(self, *, ranked: bool = False) -> None:
        if self.shard is None:
            return
        nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
        self._embed(nothing, None)
        features = self.embedding.weight.new_zeros(0, self.cells[-1].output_size)
        if ranked:
            self.head.log_prob(features)
        else:
            self.head.nll(features, nothing)

    def log_prob(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B V"], State]:
        features, state = self.features(tokens, state, resets=resets)
        return self.head.log_prob(features), state

    @torch.no_grad()
    def assess(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        state: State | None = None,
    ) -> Assessment:
        features, state = self.features(tokens, state)
        found = self.head.assess(features.flatten(0, 1), targets.flatten())
        return Assessment(found.view(targets.shape), state)

    def features(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        noise: Noise | None = None,
        resets: Bool[Tensor, "T B"] | None = None,
        run: RunCell | None = None,
    ) -> tuple[Float[Tensor, "T B F"], State]:
        """What enters the head, and the state after the window.

        Args:
            run: takes each layer over the window in the place of `run_cell`, to see what happens.
        """
        raw, state = self._run(tokens, state, noise, resets, None, run or run_cell)
        return self._drop_output(raw, noise), state

    def _drop_output(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return dropout(raw, self.rates.output, noise, "dropout.output", self.rates.locked)

    def _run(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None,
        noise: Noise | None,
        resets: Bool[Tensor, "T B"] | None,
        tied: TiedGradient | None,
        run: RunCell,
    ) -> tuple[Float[Tensor, "T B F"], State]:
        """The last layer's output before dropout, and the state after the window."""
        rates, initial = self.rates, self.initial_state(tokens.shape[1])
        state = initial if state is None else self._reset_some(state, initial, noise)
        x = self._embed(tokens, tied)
        x = drop_words(x, tokens, rates.words, noise, self.vocab_size)
        x = dropout(x, rates.embedding, noise, "dropout.embedding", rates.locked)
        after: State = []
        total: Tensor | None = None
        for k, cell in enumerate(self.cells):
            below = x
            if k:
                x = dropout(x, rates.between, noise, f"dropout.between.{k}", rates.locked)
            weights = self._weights(k, state[k], noise)
            x, layer_state = run(cell, x, state[k], weights, initial[k], resets)
            after.append(layer_state)
            if self.residual and k:
                x = x + below
            total = x if total is None or not self.skip else total + x
        assert total is not None
        return total, after

    def _embed(self, tokens: Tensor, tied: TiedGradient | None) -> Tensor:
        weight, sparse = self.embedding.weight, self._sparse_rows
        if self.shard is None:
            return embed(tokens, weight, tied=tied, sparse=sparse)
        return sharded_embed(tokens, weight, self.shard, tied=tied, sparse=sparse)

    def _weights(self, k: int, state: LayerState, noise: Noise | None) -> Weights:
        """Layer k's weights for a window: some dropped, matrices in the dtype of products."""
        cell, products = self.cells[k], self._products(noise)
        weights = drop_recurrent(cell, k, state, self.rates, noise)
        if products is None or not cell.mixed_precision:
            return weights
        return {
            name: weight.to(products) if weight.ndim > 1 and name != KEEP_H else weight
            for name, weight in weights.items()
        }

    def _reset_some(self, state: State, initial: State, noise: Noise | None) -> State:
        """The state of some streams back at its initial value, as `state_reset` asks."""
        if noise is None or not self.state_reset:
            return state
        like = state[0]["h"]
        shape, rate = (len(like), 1), self.state_reset
        keep = noise.keep_mask("state.reset", shape, rate, stream_dim=0, like=like) > 0
        return [
            {name: torch.where(keep, tensor, start[name]) for name, tensor in layer.items()}
            for layer, start in zip(state, initial, strict=True)
        ]

    @property
    def _sparse_rows(self) -> bool:
        """Whether the embedding's gradient is sparse: a tied one is if the output layer's is."""
        return self.sparse_gradients and (not self.head.tied or self.sampler is not None)

    def _products(self, noise: Noise | None) -> torch.dtype | None:
        """The dtype of products: low in training only; None is the weights' own."""
        low = noise is not None and self._compute.precision is Precision.bf16
        return torch.bfloat16 if low else None
