"""How a model's parameters follow a text: the update rules of dynamic evaluation.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic evaluation of neural sequence models", ICML. With
the gradient g of a segment's loss, the parameters θ and the trained ones θ_g:

    sgd   θ ← θ − η g + λ (θ_g − θ)
    rms   θ ← θ − η g / (R + ε) + min(1, λ R / mean(R)) (θ_g − θ)

where R = √MS_g, the root of the mean square of gradients over training text: parameters that
move much in training are let move here, and are drawn back the more.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor, nn

from lm import checks
from lm.data.streams import Streams, Window
from lm.evaluation.text import Text
from lm.models import LanguageModel
from lm.models.assessment import Assessment
from lm.models.base import State, detach
from lm.models.language_model import Output
from lm.runtime.choices import Choices
from lm.runtime.compute import Kernels, exact_products

# Streams of the statistics, as in the authors' program: the size of R depends on it.
_STATISTICS_STREAMS = 100


class Rule(Enum):
    """How a segment's gradient becomes an update."""

    sgd = "sgd"
    rms = "rms"


@dataclass(kw_only=True, slots=True)
class DynamicConfig:
    """Dynamic evaluation: the weights learn from the text that has been predicted.

    Attributes:
        rule: how a segment's gradient becomes an update: plain `sgd`, or `rms`, scaled by the root
            mean square of the gradients over training text.
        lr: η; None is tuned on the validation split.
        decay: λ, the pull back to the trained parameters; None is tuned on the validation split.
        segment: tokens between updates; the gradient reaches back as far.
        eps: ε of rms.
        statistics_tokens: training tokens over which rms collects the mean squares.
    """

    rule: Rule = Rule.rms
    lr: float | None = None
    decay: float | None = None
    segment: int = 5
    eps: float = 2e-5
    statistics_tokens: int = 200_000

    def __post_init__(self) -> None:
        checks.non_negative("dynamic.lr", self.lr)
        checks.fraction("dynamic.decay", self.decay)
        checks.at_least("dynamic.segment", self.segment, 1)
        checks.at_most("dynamic.segment", self.segment, checks.MOST_HELD)
        checks.positive("dynamic.eps", self.eps)
        checks.at_least("dynamic.statistics_tokens", self.statistics_tokens, 1)
        if self.rule is Rule.sgd:
            checks.no_effect(
                "dynamic", self, ("eps", "statistics_tokens"),
                "rule=sgd has no statistics", "Set dynamic.rule=rms",
            )  # fmt: skip


class Update:
    """Moves parameters after each segment: towards its text, and back to where they began.

    Args:
        trained: θ_g, where they began.
        scales: R of each parameter; None is the rule sgd.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        trained: Sequence[Tensor],
        *,
        lr: float,
        decay: float,
        scales: Sequence[Tensor] | None = None,
        eps: float = 0.0,
    ) -> None:
        self.parameters = parameters
        self.trained = trained
        self.lr = lr
        self.divisors: list[Tensor] | None = None
        self.pulls = [start.new_tensor(decay) for start in trained]
        if scales is not None:
            mean = torch.cat([scale.flatten() for scale in scales]).mean()
            self.divisors = [scale + eps for scale in scales]
            self.pulls = [(decay * scale / mean).clamp_(max=1) for scale in scales]

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """One step; a parameter without a gradient is only drawn back."""
        for k, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            parameter.lerp_(self.trained[k], self.pulls[k])
            if gradient is None:
                continue
            if self.divisors is None:
                parameter.sub_(gradient, alpha=self.lr)
            else:
                parameter.addcdiv_(gradient, self.divisors[k], value=-self.lr)


@contextmanager
def differentiable(model: LanguageModel) -> Iterator[tuple[list[nn.Parameter], list[Tensor]]]:
    """The parameters, each once and open to gradients, and copies of their values.

    Afterwards the model is what it was before.
    """
    parameters = list(model.parameters())
    trained = [parameter.detach().clone() for parameter in parameters]
    learning = [parameter.requires_grad for parameter in parameters]
    compute = model.compute
    # Numbers must not hang on what is fastest for a few tokens at the moment, nor may that be
    # remembered as fastest for training.
    kernels = Kernels.torch if compute.kernels is Kernels.auto else compute.kernels
    model.compute = replace(compute, kernels=kernels, choices=Choices())
    model.requires_grad_(True)
    try:
        yield parameters, trained
    finally:
        model.compute = compute
        for parameter, start, learned in zip(parameters, trained, learning, strict=True):
            parameter.data.copy_(start)
            parameter.requires_grad_(learned)


def loss_and_gradients(
    model: LanguageModel, part: Window, state: State | None, parameters: Sequence[nn.Parameter]
) -> tuple[Output, tuple[Tensor | None, ...]]:
    """A segment's prediction without noise, and the gradient of its mean nats per token."""
    tokens, targets = part.tokens.to(model.device), part.targets.to(model.device)
    with torch.enable_grad():
        output = model(tokens, targets, state, resets=part.resets)
        gradients = torch.autograd.grad(output.objective, parameters, allow_unused=True)
    return Output(output.objective.detach(), output.nll.detach(), detach(output.state)), gradients


@contextmanager
def learning(
    model: LanguageModel,
    *,
    lr: float,
    decay: float,
    scales: Sequence[Tensor] | None,
    eps: float,
) -> Iterator[Callable[[Tensor, Tensor, State | None], Assessment]]:
    """Gives what predicts a segment [T, B] and then learns from it, as dynamic evaluation does.

    Afterwards the model is what it was before.
    """
    with differentiable(model) as (parameters, trained):
        update = Update(parameters, trained, lr=lr, decay=decay, scales=scales, eps=eps)

        def predict(tokens: Tensor, targets: Tensor, state: State | None) -> Assessment:
            found = model.assess(tokens, targets, state)
            output, gradients = loss_and_gradients(
                model, Window(tokens, targets), state, parameters
            )
            update(gradients)
            return Assessment(replace(found.expected, nll=output.nll), output.state)

        yield predict


def root_mean_squares(model: LanguageModel, train: Text, config: DynamicConfig) -> list[Tensor]:
    """R = √MS_g of each parameter: over segments of many streams of the training text."""
    most = len(train.store) // (config.segment + 1)
    num_streams = max(1, min(_STATISTICS_STREAMS, most))
    streams = Streams(train.store, num_streams, config.segment, train.unit)
    wanted = config.statistics_tokens // (num_streams * config.segment)
    num_segments = max(1, min(wanted, streams.length // config.segment))
    state: State | None = None
    with differentiable(model) as (parameters, _), exact_products():
        sums = [torch.zeros_like(parameter.data) for parameter in parameters]
        for k in range(num_segments):
            part = streams.window(k * config.segment)
            output, gradients = loss_and_gradients(model, part, state, parameters)
            state = output.state
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total.addcmul_(gradient, gradient)
    return [(total / num_segments).sqrt_() for total in sums]
