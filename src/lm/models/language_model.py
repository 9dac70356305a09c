"""What every language model is, whatever predicts the next token: its schema and its interface."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm.errors import CheckpointError
from lm.models.assessment import Assessment, Expected, joined, of_log_prob, rows_at_once
from lm.models.base import State
from lm.runtime.compute import Compute
from lm.runtime.randomness import Noise


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """What the schemas of group `model` share."""

    group: ClassVar[str] = "model"
    # What a trained model does not depend on: fields that act on initialisation or training only.
    transient: ClassVar[frozenset[str]] = frozenset()

    @property
    def needs_counts(self) -> bool:
        """Whether training depends on how often each token occurs; `build` takes the counts."""
        return False

    def architecture(self) -> dict[str, object]:
        """What weights belong to: the config's class and every field but the transient ones."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {name: value for name, value in values.items() if name not in self.transient}
        return {"cell": type(self).__name__, **kept}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the architecture: shapes alone do not tell tanh from relu."""
        canonical = json.dumps(
            self.architecture(), sort_keys=True, separators=(",", ":"), default=_plain
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    @abstractmethod
    def build(
        self, vocab_size: int, *, seed: int, counts: Int[Tensor, " V"] | None = None
    ) -> "LanguageModel":
        """The model on the CPU, initialised from `seed` alone.

        Args:
            counts: of each token in the training text, for what depends on them; None is no
                training.
        """


def _plain(value: Any) -> Any:
    """What JSON cannot hold of a configuration, as what it can."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str(value)


@dataclass(slots=True)
class Output:
    """What a forward pass gives.

    Attributes:
        objective: what is minimised: mean nats per token, plus penalties where there are any.
        nll: nats per token [T, B]; what is reported.
        state: the state after the window, still part of the graph.
    """

    objective: Tensor
    nll: Tensor
    state: State


class LanguageModel(nn.Module):
    """Predicts each token of B streams from those before it; the state carries what it has read."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self._compute = Compute()

    @property
    def compute(self) -> Compute:
        """Where, in which precision and by which kernels the model computes."""
        return self._compute

    @compute.setter
    def compute(self, compute: Compute) -> None:
        self._compute = compute
        self.pass_on(compute)

    def pass_on(self, compute: Compute) -> None:
        """Tell the parts how to compute; none by default."""

    def size_of(self, name: str, parameter: nn.Parameter) -> int:
        """Elements of a parameter, those that another process has too."""
        return parameter.numel()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where tokens have to be."""

    @abstractmethod
    def initial_state(self, num_streams: int) -> State:
        """The state before the first token."""

    @abstractmethod
    def forward(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        noise: Noise | None = None,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> Output:
        """Loss of a window.

        Args:
            state: from the window before; None is the initial state.
            noise: the training step's noise; None is evaluation.
            resets: on the CPU; where true, the state returns to its initial value before that
                token is read.
        """

    @abstractmethod
    def log_prob(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B V"], State]:
        """Log-probabilities of every word after each token, and the state after the window."""

    def idle(self, *, ranked: bool = False) -> None:
        """Take part in a pass of other processes without a stream of one's own.

        Nothing to do but where each process has a part of the model.

        Args:
            ranked: the pass is one of `log_prob`.
        """

    @torch.no_grad()
    def assess(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        state: State | None = None,
    ) -> Assessment:
        """What the model expected before each target, and the state after the window."""
        step = max(1, rows_at_once(self.vocab_size) // tokens.shape[1])
        parts: list[Expected] = []
        for begin in range(0, len(tokens), step):
            rows = slice(begin, begin + step)
            log_prob, state = self.log_prob(tokens[rows], state)
            parts.append(of_log_prob(log_prob, targets[rows]))
        assert state is not None, "a window has a step"
        return Assessment(joined(parts), state)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model, by name."""
        return dict(self.named_parameters())

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy what `tensors` gave, into place.

        Raises:
            CheckpointError: a name, shape or type differs, or a value is not finite.
        """
        own = self.tensors()
        compare_tensors(own, tensors)
        for name, tensor in own.items():
            if not bool(torch.isfinite(tensors[name]).all()):
                raise CheckpointError(
                    f"{name} in the checkpoint is not finite", "Use another checkpoint."
                )
            tensor.data.copy_(tensors[name])


def compare_tensors(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare the tensors of a checkpoint with those of a model.

    Raises:
        CheckpointError: a name, shape or type differs; names the first.
    """
    remedy = "Use the model configuration that it was trained with."
    for name in sorted(own.keys() ^ found.keys()):
        side = "lacks" if name in own else "has"
        raise CheckpointError(
            f"the checkpoint {side} the parameter {name}: it is another architecture", remedy
        )
    for name, tensor in own.items():
        other = found[name]
        if tensor.shape != other.shape:
            raise CheckpointError(
                f"{name} has shape {list(other.shape)} in the checkpoint,"
                f" {list(tensor.shape)} in the model",
                remedy,
            )
        if tensor.dtype != other.dtype:
            raise CheckpointError(
                f"{name} is {other.dtype} in the checkpoint, {tensor.dtype} in the model", remedy
            )


def part_of(name: str) -> str:
    """The part a parameter belongs to: `embedding`, `layers.0`, `head`, `initial`."""
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "layers" else pieces[0]


def parameter_counts(model: LanguageModel) -> dict[str, int]:
    """Number of parameters by part, a tied weight counted once, and their `total`."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        counts[part] = counts.get(part, 0) + model.size_of(name, parameter)
    return {**counts, "total": sum(counts.values())}
