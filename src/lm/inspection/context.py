"""Effective context: how much of the past a model makes use of.

Perplexity with the state put back to its initial value every n tokens, beside that with the state
carried throughout, on the same targets; and the loss by position after a reset (Khandelwal et al.
2018, Sharp nearby, fuzzy far away, ask the same by cutting and permuting the context).
"""

import math
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lm.data.streams import Streams
from lm.evaluation.exact import losses
from lm.evaluation.text import Text
from lm.metrics.perplexity import exp
from lm.models import LanguageModel
from lm.runtime.compute import exact_products

# Segments read at a time: always so many, since for each number the kernels are compared anew.
_STREAMS = 64
_WORTH = 0.01


@dataclass(frozen=True, slots=True)
class EffectiveContext:
    """What is lost by forgetting.

    Attributes:
        num_tokens: targets that each number is the mean of.
        carried: mean nats per token with the state carried throughout.
        lengths: every how many tokens the state was reset.
        reset: mean nats per token then.
        by_position: mean nats lost, against the carried state, at each position after a reset; of
            the longest length.
    """

    num_tokens: int
    carried: float
    lengths: list[int]
    reset: list[float]
    by_position: list[float]

    @property
    def effective(self) -> int | None:
        """The least n whose perplexity is within 1 % of the carried one; None is none of these."""
        limit = self.carried + math.log1p(_WORTH)
        pairs = zip(self.lengths, self.reset, strict=True)
        return next((n for n, loss in pairs if loss <= limit), None)

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            **asdict(self),
            "effective": self.effective,
            "carried_perplexity": exp(self.carried),
            "reset_perplexity": [exp(loss) for loss in self.reset],
        }


@torch.no_grad()
def measure_context(model: LanguageModel, text: Text, lengths: list[int]) -> EffectiveContext:
    """On the targets of a text, less those that do not fill the longest length.

    Args:
        lengths: rising.
    """
    lengths = [n for n in lengths if n <= text.num_targets]
    longest = lengths[-1]
    num_targets = text.num_targets // longest * longest
    with exact_products():
        windows = text.first(num_targets).windows(1024, "inspect")
        carried = torch.cat([nll[:, 0] for _, nll in losses(model, windows)]).double().cpu()
        with text.bar("inspect") as bar:
            reset = []
            for n in lengths:
                bar.set_postfix_str(f"reset every {n}", refresh=False)
                reset.append(_with_resets(model, text, n, num_targets))
                bar.update(text.num_targets // len(lengths))
    lost = (reset[-1] - carried.view(-1, longest).T).mean(1)
    return EffectiveContext(
        num_tokens=num_targets,
        carried=carried.mean().item(),
        lengths=lengths,
        reset=[nats.mean().item() for nats in reset],
        by_position=lost.tolist(),
    )


def _with_resets(
    model: LanguageModel, text: Text, length: int, num_targets: int
) -> Float[Tensor, "T S"]:
    """Nats by position in a segment and by segment, each read from the initial state."""
    streams = Streams(text.store, 1, length, text.unit)
    starts = list(range(0, num_targets, length))
    padded = starts + [0] * (-len(starts) % _STREAMS)
    parts = (
        streams.read(padded[first : first + _STREAMS], length)
        for first in range(0, len(padded), _STREAMS)
    )
    # Each part by itself: `losses` would carry the state on.
    found = [nll.double().cpu() for part in parts for _, nll in losses(model, [part])]
    return torch.cat(found, dim=1)[:, : len(starts)]
