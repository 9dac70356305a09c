"""The n-gram model: interpolated modified Kneser–Ney, counted rather than trained by gradient."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm import checks
from lm.errors import CheckpointError
from lm.models.base import State
from lm.models.kneser_ney import Counter, nothing_read
from lm.models.language_model import LanguageModel, ModelConfig, Output
from lm.models.ngram_tables import Level, View
from lm.runtime.randomness import Noise

_DTYPES = {"keys": torch.int64, "share": torch.float64, "backoff": torch.float64}


@dataclass(kw_only=True, slots=True)
class NgramConfig(ModelConfig):
    """The n-gram model.

    Attributes:
        order: words of the longest n-grams: a word is predicted from `order − 1` before it.
    """

    order: int = 5

    def __post_init__(self) -> None:
        checks.at_least("model.order", self.order, 1)
        checks.at_most("model.order", self.order, 100)

    def build(
        self, vocab_size: int, *, seed: int, counts: Int[Tensor, " V"] | None = None
    ) -> "NgramModel":
        return NgramModel(self, vocab_size)


class NgramModel(LanguageModel):
    """An n-gram model; uniform until it has `levels`.

    It computes on the CPU, wherever it is sent: binary searches in tables that may be larger than a
    GPU's memory, in float64, which MPS lacks. Memory: 24 bytes an n-gram, 16 one of the longest.

    Attributes:
        levels: of the n-grams of 1, 2, … `order` words.
    """

    def __init__(self, config: NgramConfig, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self.order = config.order
        nothing = Counter(config.order, vocab_size)
        for _ in range(config.order):
            nothing.end_pass()
        self.levels = [level for level, _ in nothing.levels()]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def num_ngrams(self) -> int:
        """Of all lengths, every word of the vocabulary among them."""
        return sum(len(level.keys) for level in self.levels)

    def initial_state(self, num_streams: int) -> State:
        return [{"history": nothing_read(num_streams, self.order)}]

    def forward(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        noise: Noise | None = None,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> Output:
        contexts, after = self._read(tokens, state, resets)
        words = targets.to(self.device)
        p = torch.full(words.shape, 1 / self.vocab_size, dtype=torch.float64)
        for level, context in zip(self.levels, contexts, strict=True):
            p = level.mix(p, context, words, self.vocab_size)
        nll = -p.log().to(tokens.device, torch.float32)
        return Output(objective=nll.mean(), nll=nll, state=after)

    def log_prob(
        self,
        tokens: Int[Tensor, "T B"],
        state: State | None = None,
        *,
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B V"], State]:
        (none, *contexts), after = self._read(tokens, state, resets)
        shortest, *longer = self.levels
        p = torch.full((1, self.vocab_size), 1 / self.vocab_size, dtype=torch.float64)
        shortest.mix_all(p, none.new_zeros(1))
        p = p.repeat(tokens.numel(), 1)
        for level, context in zip(longer, contexts, strict=True):
            level.mix_all(p, context.flatten())
        log_prob = p.log_().to(tokens.device, torch.float32)
        return log_prob.view(*tokens.shape, self.vocab_size), after

    def _read(
        self, tokens: Int[Tensor, "T B"], state: State | None, resets: Bool[Tensor, "T B"] | None
    ) -> tuple[list[Int[Tensor, "T B"]], State]:
        """Ids of the contexts of 0, 1, … words after each token, and the state after the window."""
        layer = (self.initial_state(tokens.shape[1]) if state is None else state)[0]
        view = View(layer["history"].to(self.device), tokens.to(self.device), resets)
        tables = [level.keys for level in self.levels[:-1]]
        return view.contexts(tables, self.vocab_size), [{"history": view.history()}]

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{part}.{length}": getattr(level, part)
            for length, level in enumerate(self.levels, start=1)
            for part in _DTYPES
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; sizes are those of the text that was counted.

        Raises:
            CheckpointError: another order or vocabulary, or numbers that are no distribution.
        """
        self.levels = _levels(tensors, self.order, self.vocab_size)


def _levels(tensors: Mapping[str, Tensor], order: int, vocab_size: int) -> list[Level]:
    remedy = "Use another checkpoint of the run."
    names = {f"{part}.{length}" for length in range(1, order + 1) for part in _DTYPES}
    for name in sorted(names ^ tensors.keys()):
        side = "lacks" if name in names else "has"
        raise CheckpointError(f"the checkpoint {side} {name}, model.order is {order}", remedy)
    levels: list[Level] = []
    for length in range(1, order + 1):
        parts = {part: tensors[f"{part}.{length}"] for part in _DTYPES}
        num_contexts = len(levels[-1].keys) if levels else 1
        sizes = {"keys": parts["keys"].numel(), "backoff": num_contexts + 1}
        sizes["share"] = sizes["keys"] + 1
        for part, tensor in parts.items():
            if tensor.dtype != _DTYPES[part] or tensor.shape != (sizes[part],):
                raise CheckpointError(
                    f"{part}.{length} is {tensor.dtype} {list(tensor.shape)}, the model needs"
                    f" {_DTYPES[part]} [{sizes[part]}]",
                    remedy,
                )
        level = Level(**parts)
        fault = level.fault(vocab_size)
        if length == 1 and sizes["keys"] != vocab_size:
            fault = f"{sizes['keys']} words stand beside a vocabulary of {vocab_size}"
        if fault:
            raise CheckpointError(f"the checkpoint's n-grams of {length} words: {fault}", remedy)
        levels.append(level)
    return levels
