"""What an evaluation method is: tuned on validation text, then measured; and the plain one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lm.evaluation.exact import evaluate, losses
from lm.evaluation.text import Text
from lm.metrics.perplexity import Score
from lm.models import LanguageModel
from lm.runtime.compute import exact_products

Item = TypeVar("Item")


class Method(ABC):
    """A way to predict a text with a model.

    `tune` sees validation text and nothing else; `nats` changes nothing but what it remembers.

    Attributes:
        name: what the table calls it.
        tuned_on: the text that values were tuned on; None before, and where all were given.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tuned_on: str | None = None
        self._known: dict[Text, Tensor] = {}

    @property
    def values(self) -> dict[str, float]:
        """The method's parameters by name, tuned or given; none by default."""
        return {}

    @property
    def needs_tuning(self) -> bool:
        """Whether a value is missing that validation text has to give."""
        return False

    def tune(self, valid: Text) -> None:
        """Find the values that were not given; none by default."""
        assert not self.needs_tuning

    def nats(self, text: Text) -> Float[Tensor, " N"]:
        """−log p of each target, in float64 on the CPU; the text is read once and remembered."""
        assert not self.needs_tuning, "tune first"
        if text not in self._known:
            self._known[text] = self._predict(text)
        return self._known[text]

    def score(self, text: Text) -> Score:
        """What the nats of a whole split amount to."""
        return text.score(self.nats(text))

    @abstractmethod
    def _predict(self, text: Text) -> Float[Tensor, " N"]:
        """Read the text."""


class Static(Method):
    """The model as it is: what `evaluate` sums up.

    Args:
        num_streams: 1 is exact.
    """

    def __init__(
        self, model: LanguageModel, *, window: int, num_streams: int = 1, name: str = "static"
    ) -> None:
        super().__init__(name)
        self.model = model
        self.window = window
        self.num_streams = num_streams

        self._scores: dict[Text, Score] = {}

    def score(self, text: Text) -> Score:
        self.nats(text)
        return self._scores[text]

    def _predict(self, text: Text) -> Float[Tensor, " N"]:
        if text.limit is not None:
            return gather(self._beginning(text), lambda nll: nll)
        nats = torch.empty(text.num_targets, dtype=torch.float64)
        with text.bar(self.name) as bar:
            self._scores[text] = evaluate(
                self.model,
                text.store,
                num_streams=self.num_streams,
                window=self.window,
                unit=text.unit,
                on_window=bar.update,
                out=nats,
            )
        return nats

    def _beginning(self, text: Text) -> Generator[Tensor, None, None]:
        for _, nll in losses(self.model, text.windows(self.window, self.name)):
            yield nll[:, 0]


def gather(
    steps: Generator[Item, None, None], value: Callable[[Item], Tensor]
) -> Float[Tensor, "*K N"]:
    """`value` of each step side by side, along the last dimension, in float64 on the CPU.

    Products are in float32 meanwhile. Whatever happens, the generator ends before this does, so
    that a model which it changed is itself again.
    """
    with exact_products(), closing(steps):
        return torch.cat([value(step).cpu().double() for step in steps], dim=-1)
