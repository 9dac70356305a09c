"""A model that reads tokens and says what it expected: a stream, or sentences side by side."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lm.errors import NumericError
from lm.models import LanguageModel
from lm.models.assessment import Assessment, Expected, joined
from lm.models.base import State
from lm.runtime.compute import exact_products
from lm.scoring.tokens import Measures, joined_measures, unmeasured

# (tokens [T, B], targets [T, B], state) → what was expected of the targets, and the state after.
Predict = Callable[[Tensor, Tensor, State | None], Assessment]

_Numbers = NDArray[np.float64]

# Sentences that are read side by side. How fast kernels are depends on the number, and is measured
# for each: so it is a power of two, the rest filled with what is not looked at.
STREAMS = 32
# With fewer steps at a time, more than the products is spent on what stands around them.
_LEAST_STEPS = 32


def predictor(model: LanguageModel, *, detailed: bool = True) -> Predict:
    """The model as it is.

    Args:
        detailed: entropies and ranks are wanted; without them the model's own loss is enough.
    """

    @torch.no_grad()
    def plain(tokens: Tensor, targets: Tensor, state: State | None) -> Assessment:
        output = model(tokens, targets, state)
        nothing = torch.full_like(output.nll, torch.nan)
        return Assessment(Expected(output.nll, nothing, nothing), output.state)

    return model.assess if detailed else plain


class Reader:
    """Reads one stream of tokens, the state carried from each to the next.

    Args:
        begin: the token before the first; None leaves the first without a prediction.
        predict: what predicts a window; None is the model as it is.
        window: tokens at a time.
        whole: read nothing before a window is full, for what depends on where windows end.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        begin: int | None = None,
        predict: Predict | None = None,
        window: int = 1024,
        whole: bool = False,
    ) -> None:
        self._model = model
        self._predict = predict or predictor(model)
        self._least = window if whole else 1
        self._window = window
        self._before = begin
        self._state: State | None = None
        self._held: NDArray[np.int64] = np.empty(0, np.int64)

    def read(self, ids: NDArray[np.int64]) -> Measures:
        """What was expected of the next tokens, as far as they have been read."""
        return self._advance(ids, self._least)

    def finish(self) -> Measures:
        """Of the tokens that wait for their window to fill."""
        return self._advance(self._held[:0], 1)

    def entropy_after(self) -> float:
        """Entropy of what comes after all that was read, in nats; NaN before the first token."""
        if self._before is None:
            return float("nan")
        last = torch.tensor([[self._before]], device=self._model.device)
        with exact_products():
            expected = self._model.assess(last, torch.zeros_like(last), self._state).expected
        return expected.entropy.item()

    def _advance(self, ids: NDArray[np.int64], least: int) -> Measures:
        found = unmeasured(0)
        if self._before is None and len(ids):
            self._before, ids, found = int(ids[0]), ids[1:], unmeasured(1)
        self._held = np.concatenate([self._held, ids])
        parts = [found]
        with exact_products():
            while len(self._held) >= least:
                parts.append(self._read_window(self._held[: self._window]))
                self._held = self._held[self._window :]
        return joined_measures(parts)

    def _read_window(self, ids: NDArray[np.int64]) -> Measures:
        assert self._before is not None
        block = torch.from_numpy(np.append(self._before, ids)).to(self._model.device)[:, None]
        found = self._predict(block[:-1], block[1:], self._state)
        self._before, self._state = int(ids[-1]), found.state
        nats, entropy, rank = (values[:, 0] for values in _numbers(found.expected))
        return Measures(nats, entropy, rank, np.full(len(ids), np.nan))


def read_sentences(
    model: LanguageModel,
    sentences: Sequence[NDArray[np.int64]],
    *,
    begin: int,
    predict: Predict | None = None,
    window: int = 1024,
) -> list[Measures]:
    """What was expected of each sentence, as if it stood alone after the token `begin`.

    They are read by length, so that little is read beside them, and given back in their order.
    """
    order = sorted(range(len(sentences)), key=lambda k: len(sentences[k]))
    found = [unmeasured(0)] * len(sentences)
    with exact_products():
        for start in range(0, len(order), STREAMS):
            some = order[start : start + STREAMS]
            batch = [sentences[k] for k in some]
            for k, one in zip(some, _read_batch(model, batch, begin, predict, window), strict=True):
                found[k] = one
    return found


def _read_batch(
    model: LanguageModel,
    batch: list[NDArray[np.int64]],
    begin: int,
    predict: Predict | None,
    window: int,
) -> list[Measures]:
    predict = predict or predictor(model)
    num_streams = 1 << (len(batch) - 1).bit_length()
    longest = max(map(len, batch))
    # One step more than there are tokens: what is expected after the last.
    block = np.zeros((longest + 2, num_streams), np.int64)
    block[0] = begin
    for column, ids in enumerate(batch):
        block[1 : len(ids) + 1, column] = ids
    tokens = torch.from_numpy(block).to(model.device)
    steps = max(_LEAST_STEPS, window // num_streams)
    state: State | None = None
    parts: list[Expected] = []
    for first in range(0, longest + 1, steps):
        last = min(first + steps, longest + 1)
        seen = predict(tokens[first:last], tokens[first + 1 : last + 1], state)
        state = seen.state
        parts.append(seen.expected)
    nats, entropy, rank = _numbers(joined(parts))
    return [
        _of_sentence(nats[:, column], entropy[:, column], rank[:, column], len(ids))
        for column, ids in enumerate(batch)
    ]


def _of_sentence(nats: _Numbers, entropy: _Numbers, rank: _Numbers, length: int) -> Measures:
    """The first steps of a stream that reads more."""
    after = np.full(length, np.nan)
    after[-1:] = entropy[length]
    return Measures(nats[:length], entropy[:length], rank[:length], after)


def _numbers(expected: Expected) -> list[_Numbers]:
    """Nats, entropies and ranks in float64 on the CPU.

    Raises:
        NumericError: the model's output is no distribution.
    """
    parts = (expected.nll, expected.entropy, expected.rank)
    nats, entropy, rank = (part.cpu().double().numpy() for part in parts)
    if not np.isfinite(nats).all():
        raise NumericError(
            "the model gives NaN or infinity: its weights diverged",
            "Use a checkpoint from before that; with adaptive=true, set a lower dynamic.lr.",
        )
    return [nats, entropy, rank]
