"""Whether exported programs compute what the model does: on random text, lengths and states."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lm.errors import ExportError
from lm.export.graphs import STEP, WINDOW, flat, nested
from lm.models import RecurrentModel
from lm.runtime.compute import exact_products
from lm.runtime.randomness import generator

# tokens, state → log_prob, state
Runner = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]

TOLERANCE = 1e-5
"""Of a log-probability in nats, and of the state relative to its size where that is above 1."""
_MOST_STEPS, _MOST_STREAMS, _TRIALS = 24, 5, 4


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest differences that were found.

    Attributes:
        log_prob: in nats.
        state: relative to the size of a number where that is above 1.
        predictions: how many distributions were compared.
    """

    log_prob: float
    state: float
    predictions: int

    def describe(self) -> str:
        """For people."""
        return (
            f"largest difference from the model over {self.predictions} predictions: "
            f"log_prob {self.log_prob:.1e}, state {self.state:.1e} (at most {TOLERANCE:.0e})"
        )


@torch.no_grad()
def agreement(model: RecurrentModel, runners: Mapping[str, Runner], seed: int = 1) -> Agreement:
    """Compare both programs with the model, which is on the CPU.

    Raises:
        ExportError: they differ by more than `TOLERANCE`, or something is not a number.
    """
    log_probs, states, predictions = [0.0], [0.0], 0
    for tokens, before in _texts(model, generator(seed, 0, "export")):
        with exact_products():
            log_prob, after = model.log_prob(tokens, nested(model, before))
        for found, state in (
            runners[WINDOW](tokens, before),
            _step_by_step(runners[STEP], tokens, before),
        ):
            log_probs.append(_difference([found], [log_prob], relative=False))
            states.append(_difference(state, flat(model, after), relative=True))
            predictions += tokens.numel()
    result = Agreement(_largest(log_probs), _largest(states), predictions)
    if not max(result.log_prob, result.state) <= TOLERANCE:
        raise ExportError(
            f"the exported graphs do not compute what the model does: {result.describe()}",
            "Check the model with `lm evaluate audit=true`; if it is sound, report this as a bug.",
        )
    return result


def _texts(model: RecurrentModel, draws: Generator) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Random tokens [T, B] and a state in which a model may be, that after other random tokens.

    One step of one stream is the first: the case that exporters tend to take for a constant.
    """

    def number(most: int) -> int:
        return int(torch.randint(1, most + 1, (), generator=draws))

    def text(steps: int, streams: int) -> Tensor:
        return torch.randint(model.vocab_size, (steps, streams), generator=draws)

    for trial in range(_TRIALS):
        steps, streams = (number(_MOST_STEPS), number(_MOST_STREAMS)) if trial else (1, 1)
        _, state = model.log_prob(text(number(_MOST_STEPS), streams))
        yield text(steps, streams), flat(model, state)


def _step_by_step(step: Runner, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    log_probs = []
    for token in tokens:
        log_prob, state = step(token, state)
        log_probs.append(log_prob)
    return torch.stack(log_probs), state


def _difference(found: list[Tensor], wanted: list[Tensor], *, relative: bool) -> float:
    """NaN where a shape differs, or a number is none on one side only."""
    parts = [0.0]
    for left, right in zip(found, wanted, strict=True):
        if left.shape != right.shape:
            return float("nan")
        scale = right.abs().clamp(min=1) if relative else 1
        parts.append(((left - right).abs() / scale).max().item())
    return _largest(parts)


def _largest(values: list[float]) -> float:
    """NaN if one is NaN, which `max` may pass over."""
    return torch.tensor(values, dtype=torch.float64).max().item()
