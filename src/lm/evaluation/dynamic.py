"""Dynamic evaluation: the model learns from each segment of a text after predicting it.

The rules of its updates are in `adaptation`.
"""

import logging
import math
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lm.data.streams import Window
from lm.errors import NumericError
from lm.evaluation.adaptation import (
    DynamicConfig,
    Rule,
    Update,
    differentiable,
    loss_and_gradients,
    root_mean_squares,
)
from lm.evaluation.cache import Step
from lm.evaluation.method import Method, gather
from lm.evaluation.search import descend
from lm.evaluation.text import Text
from lm.models import RecurrentModel
from lm.models.base import State

log = logging.getLogger(__name__)

# Each trial is a training run over its text: without a word from the user, over so much of it.
TUNE_TOKENS = 20_000
# Where the search begins, for segments of 5 tokens; for rms near the authors' tuned values.
_START = {Rule.rms: {"lr": 4e-5, "decay": 1e-3}, Rule.sgd: {"lr": 0.2, "decay": 2e-3}}


class Dynamic(Method):
    """A model that goes on learning; its weights are restored afterwards.

    Args:
        train: training text, for the statistics of the rule rms.
    """

    def __init__(self, model: RecurrentModel, config: DynamicConfig, *, train: Text | None) -> None:
        super().__init__("dynamic")
        assert train is not None or config.rule is Rule.sgd
        self.model = model
        self.config = config
        self.train = train
        given = {"lr": config.lr, "decay": config.decay}
        self._values = {name: value for name, value in given.items() if value is not None}

    @property
    def values(self) -> dict[str, float]:
        return dict(self._values)

    @property
    def needs_tuning(self) -> bool:
        return len(self._values) < 2

    def tune(self, valid: Text) -> None:
        """By trials on validation text, on the beginning of it unless it is limited already."""
        if not self.needs_tuning:
            return
        some = valid.beginning(TUNE_TOKENS)
        scale = self.config.segment / 5
        start = {
            name: value * scale
            for name, value in _START[self.config.rule].items()
            if name not in self._values
        }

        def loss(found: Mapping[str, float]) -> float:
            seen = self._learn(some, {**self._values, **found})
            value = gather(seen, lambda step: step.nll).mean().item()
            listed = " ".join(f"{name}={number:.3g}" for name, number in found.items())
            log.info("dynamic evaluation, %s: loss %.4f on %s", listed, value, some.describe())
            return value

        self._values |= descend(loss, start, factor=2.0)
        self.tuned_on = some.describe()

    def _predict(self, text: Text) -> Float[Tensor, " N"]:
        return self._finite(text, gather(self._learn(text, self._values), lambda step: step.nll))

    def _finite(self, text: Text, nats: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        if not math.isfinite(nats.sum().item()):
            raise NumericError(
                f"dynamic evaluation diverged on {text.name} with dynamic.lr="
                f"{self._values['lr']:.3g}",
                "Set a lower dynamic.lr.",
            )
        return nats

    def steps(self, text: Text) -> Generator[Step, None, None]:
        """The text as the learning model sees it, for a cache beside it.

        Read to its end, it leaves what `nats` would read it again for.
        """
        nats: list[Tensor] = []
        with closing(self._learn(text, self._values)) as segments:
            for seen in segments:
                part = seen.part
                with torch.no_grad():
                    tokens = part.tokens.to(self.model.device)
                    features, _ = self.model.features(tokens, seen.state, resets=part.resets)
                resets = None if part.resets is None else part.resets[:, 0]
                targets = part.targets.to(self.model.device)[:, 0]
                nats.append(seen.nll.cpu().double())
                yield Step(targets, seen.nll, features[:, 0], resets)
        self._known[text] = self._finite(text, torch.cat(nats))

    def _learn(self, text: Text, values: Mapping[str, float]) -> Generator["_Seen", None, None]:
        """Each segment as it was predicted; the model learns from it when the next is asked for."""
        scales, eps = self._scales, self.config.eps
        state: State | None = None
        with differentiable(self.model) as (parameters, trained):
            update = Update(parameters, trained, **values, scales=scales, eps=eps)
            for part in text.windows(self.config.segment, self.name):
                output, gradients = loss_and_gradients(self.model, part, state, parameters)
                yield _Seen(part, state, output.nll[:, 0])
                state = output.state
                update(gradients)

    @cached_property
    def _scales(self) -> list[Tensor] | None:
        if self.config.rule is Rule.sgd:
            return None
        assert self.train is not None
        log.info("dynamic evaluation: statistics of gradients on %s", self.train.name)
        return root_mean_squares(self.model, self.train, self.config)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A segment, the state before it, and its nats per token."""

    part: Window
    state: State | None
    nll: Float[Tensor, " T"]
