"""Splitting a model's words over processes, each of which keeps some rows of their vectors."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm.errors import ConfigError
from lm.models.embedding import TiedGradient
from lm.models.head import Head, SoftmaxHead, project
from lm.models.kernels.sampled import Sample
from lm.models.kernels.sharded import sharded_loss, sharded_nll
from lm.models.recurrent import RecurrentModel
from lm.models.shard import SPLIT, Shard
from lm.runtime.processes import Processes
from lm.runtime.randomness import Noise


class ShardedSoftmaxHead(SoftmaxHead):
    """A softmax head that has the rows of some words, and with others of its kind all of them."""

    def __init__(self, whole: SoftmaxHead, weight: nn.Parameter, shard: Shard) -> None:
        Head.__init__(self, whole.vocab_size, tied=whole.tied)
        self.shard = shard
        self.rows = shard.rows, shard.vocab_size
        self.smoothing = whole.smoothing
        self.weight = weight
        self.bias = None if whole.bias is None else nn.Parameter(shard.own(whole.bias.data))
        self.projection = whole.projection
        self.compute = whole.compute

    def loss(
        self,
        features: Float[Tensor, "N F"],
        targets: Int[Tensor, " N"],
        *,
        dtype: torch.dtype | None = None,
        tied: TiedGradient | None = None,
        noise: Noise | None = None,
        sample: Sample | None = None,
        sparse: bool = False,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
        assert sample is None, "refused by split_vocabulary"
        x = project(features, self.projection, dtype)
        return sharded_loss(
            x, self.weight, self.bias, targets, self.shard, dtype=dtype or self.weight.dtype,
            tied=tied,
        )  # fmt: skip

    def nll(
        self, features: Float[Tensor, "N F"], targets: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        x = project(features, self.projection)
        counts = self.shard.processes.counts(targets)
        found = sharded_nll(
            x, self.weight, self.bias, targets, self.shard, counts, dtype=x.dtype, gradients=False
        )
        return found[0]

    def log_prob(self, features: Float[Tensor, "*N F"]) -> Float[Tensor, "*N V"]:
        x = project(features, self.projection)
        flat = x.reshape(-1, x.shape[-1])
        counts = self.shard.processes.counts(flat)
        everybody = self.shard.processes.gather_lists(flat, counts)
        logits = nn.functional.linear(everybody, self.weight, self.bias)
        whole = self.shard.columns(logits, counts).log_softmax(-1)
        return whole.view(*features.shape[:-1], self.vocab_size)


def split_vocabulary(model: RecurrentModel, processes: Processes) -> None:
    """Keep this process's rows of the embedding and the output layer, in place.

    From then on each pass through the model is one of all processes together.

    Raises:
        ConfigError: the model's output layer, or its objective, needs all words at once.
    """
    head = model.head
    reason = _obstacle(model, processes)
    if reason is not None:
        raise ConfigError(
            f"runtime.split_vocabulary=true: {reason}",
            "Change that, or drop runtime.split_vocabulary.",
        )
    assert isinstance(head, SoftmaxHead)
    shard = Shard(processes, model.vocab_size)
    own = nn.Parameter(shard.own(model.embedding.weight.data))
    weight = own if head.tied else nn.Parameter(shard.own(head.weight.data))
    model.embedding.weight = own
    model.head = ShardedSoftmaxHead(head, weight, shard)
    model.shard = shard


def _obstacle(model: RecurrentModel, processes: Processes) -> str | None:
    head = model.head
    if not isinstance(head, SoftmaxHead):
        return "model.head is not softmax"
    if model.sampler is not None:
        return "model.sampled draws words for the whole vocabulary"
    if head.smoothing:
        return "model.penalty.label_smoothing needs the mean of all words' vectors"
    if model.vocab_size < processes.size:
        return f"{model.vocab_size} words for {processes.size} processes"
    return None


def split_names(model: RecurrentModel) -> frozenset[str]:
    """Parameters of which this process has some rows; none where nothing is split."""
    if model.shard is None:
        return frozenset()
    return SPLIT & {name for name, _ in model.named_parameters()}


def is_split(name: str, split: Iterable[str]) -> bool:
    """Whether a tensor of a checkpoint, such as `exp_avg/head.weight`, is of a split parameter."""
    return name.rpartition("/")[2] in split


def own_tensors(model: RecurrentModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of tensors with the rows of all words, as a checkpoint has them, our own."""
    split, shard = split_names(model), model.shard
    if shard is None:
        return dict(tensors)
    return {
        name: shard.own(tensor)
        if is_split(name, split) and tensor.ndim and len(tensor) == shard.vocab_size
        else tensor
        for name, tensor in tensors.items()
    }
