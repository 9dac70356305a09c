"""Exact evaluation: Σ NLL in float64 over every target once, with the state carried throughout.

The number we report is the single-stream one, in float32 products. More streams are faster and
approximate, since each starts without its predecessor's state; their number is part of the result.
The chunk length changes nothing but rounding.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm.data.corpus import Unit
from lm.data.store import TokenStore
from lm.data.streams import Streams, Window
from lm.data.truth import RECALL_ENDS
from lm.errors import DataError
from lm.metrics.perplexity import Score
from lm.models import LanguageModel
from lm.models.base import State, slice_streams
from lm.runtime.compute import exact_products
from lm.runtime.processes import ALONE, Processes


def check_evaluable(store: TokenStore, label: str = "") -> None:
    """Refuse a split without a target; before training, so that its end holds no surprise.

    Args:
        label: what the user knows the text by.

    Raises:
        DataError: the split has fewer than two tokens.
    """
    if len(store) < 2:
        raise DataError(
            f"{label or store.path} has {len(store)} tokens, evaluation needs at least 2",
            "Give it a longer text.",
        )


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    store: TokenStore,
    *,
    num_streams: int = 1,
    window: int = 1024,
    unit: Unit = Unit.stream,
    on_window: Callable[[int], object] = lambda num_targets: None,
    out: Float[Tensor, " N"] | None = None,
    processes: Processes = ALONE,
) -> Score:
    """Predict every token of a split but its first.

    Args:
        num_streams: 1 is exact.
        window: steps per forward pass.
        on_window: called with the number of targets after each window (a bar, a stop check).
        out: takes the nats of each target, in the order of the text; of several processes, each
            has those of its own streams.
        processes: share the streams; all of them get the whole score.

    Raises:
        DataError: the split has fewer than two tokens, hence no target.
    """
    check_evaluable(store)
    num_targets = len(store) - 1
    num_streams = min(num_streams, num_targets)
    streams = Streams(store, num_streams, window, unit, processes.share(num_streams))
    # MPS has no float64.
    exact = torch.float32 if model.device.type == "mps" else torch.float64
    total = torch.zeros((), dtype=exact, device=model.device)
    right = None if store.recalled is None else torch.zeros(num_targets, dtype=torch.bool)
    position = 0
    with exact_products():
        for part, nll, hits in predictions(
            model, streams.evaluation_windows(), ranked=right is not None
        ):
            total += nll.sum(dtype=exact)
            if out is not None:
                _place(out, nll, streams.evaluation_starts, position)
            if right is not None and hits is not None:
                _place(right, hits, streams.evaluation_starts, position)
            position += len(nll)
            on_window(part.num_targets)
    processes.add_up(total)
    if right is not None and not processes.alone:
        counts = right.to(total.device, torch.uint8)
        processes.add_up(counts)
        right = counts.cpu().bool()
    num_recalled, num_right = (0, 0) if right is None else recall(store, right)
    return Score(
        nats=total.item(),
        num_tokens=num_targets,
        num_bytes=store.predicted_bytes,
        num_words=store.header.predicted_words,
        num_streams=num_streams,
        lossy=store.lossless_reason(),
        floor_nats=store.floor_nats,
        num_recalled=num_recalled,
        num_recalled_right=num_right,
    )


def recall(store: TokenStore, right: Bool[Tensor, " N"]) -> tuple[int, int]:
    """Symbols that follow from earlier ones, and how many of them were predicted.

    A symbol of several tokens is predicted when each of them is.

    Args:
        right: whether each target is the model's first choice.
    """
    assert store.recalled is not None
    marks = torch.from_numpy(np.array(store.recalled))
    inside = marks > 0
    ends = marks[inside] == RECALL_ENDS
    whole = int(ends.sum())
    number = ends.cumsum(0) - ends.long()  # of the symbol that each token belongs to
    # A text that was cut inside a symbol has tokens of one more, which does not count.
    wrong = torch.bincount(number[~right[inside]], minlength=whole)[:whole]
    return whole, int((wrong == 0).sum())


def _place(out: Tensor, nll: Tensor, starts: list[int], position: int) -> None:
    """Put a window [T, B], `position` steps into its streams, where it belongs in the text."""
    for start, column in zip(starts, nll.T, strict=False):  # the last window has fewer streams
        out[start + position : start + position + len(column)] = column


@torch.no_grad()
def losses(model: LanguageModel, windows: Iterable[Window]) -> Iterator[tuple[Window, Tensor]]:
    """Each window with its nats per token [T, B], the state carried from one to the next."""
    for part, nll, _ in predictions(model, windows):
        yield part, nll


@torch.no_grad()
def predictions(
    model: LanguageModel, windows: Iterable[Window], *, ranked: bool = False
) -> Iterator[tuple[Window, Tensor, Tensor | None]]:
    """The same, and with `ranked` whether each target [T, B] is the model's first choice.

    That takes the probabilities of the whole vocabulary, which the loss alone does without.
    """
    device = model.device
    state: State | None = None
    before = 0
    for part in windows:
        num_streams = part.tokens.shape[1]
        if state is not None and num_streams < before:
            state = slice_streams(state, slice(num_streams))
        before = num_streams
        if not num_streams:  # all of this window are another process's
            model.idle(ranked=ranked)
            none = torch.zeros(part.targets.shape, device=device)
            yield part, none, none.bool() if ranked else None
            continue
        tokens, targets = part.tokens.to(device), part.targets.to(device)
        if ranked:
            log_prob, state = model.log_prob(tokens, state, resets=part.resets)
            nll = -log_prob.gather(-1, targets[..., None])[..., 0]
            yield part, nll, log_prob.argmax(-1) == targets
        else:
            output = model(tokens, targets, state, resets=part.resets)
            state = output.state
            yield part, output.nll, None
