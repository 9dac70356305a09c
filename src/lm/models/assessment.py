"""What a model expected before a token: its surprisal, the entropy, and the token's rank.

Nothing of size [N, V] is kept: rows are worked on some at a time, and the numbers taken off them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm.models.base import State
from lm.models.kernels import native_assess
from lm.models.kernels.nll import CHUNK_BYTES, row_chunks

# Distributions over the vocabulary that are held at once, in numbers.
_HELD = CHUNK_BYTES // 4


@dataclass(slots=True)
class Expected:
    """Of each target; of what shape is said where it is made.

    Attributes:
        nll: −log p(target), in nats.
        entropy: −Σ_w p(w) log p(w) of the distribution that the target is drawn from, in nats.
        rank: 1 + how many words are more probable than the target.
    """

    nll: Tensor
    entropy: Tensor
    rank: Tensor

    def view(self, shape: torch.Size) -> "Expected":
        """The same numbers in another shape."""
        return Expected(self.nll.view(shape), self.entropy.view(shape), self.rank.view(shape))


@dataclass(slots=True)
class Assessment:
    """What a model expected in a window.

    Attributes:
        expected: of the targets, [T, B].
        state: after the window.
    """

    expected: Expected
    state: State


def rows_at_once(vocab_size: int) -> int:
    """How many distributions are looked at together."""
    return max(1, _HELD // vocab_size)


def joined(parts: list[Expected]) -> Expected:
    """Parts one after another, along their first dimension."""
    fields = ("nll", "entropy", "rank")
    return Expected(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def of_log_prob(log_prob: Float[Tensor, "*N V"], targets: Int[Tensor, "*N"]) -> Expected:
    """From log-probabilities of the whole vocabulary, in whatever shape they come."""
    wanted = log_prob.gather(-1, targets[..., None])
    # exp(−inf) · −inf is no number, and its limit is 0.
    entropy = -(log_prob.exp() * log_prob.clamp_min(torch.finfo(log_prob.dtype).min)).sum(-1)
    return Expected(-wanted.squeeze(-1), entropy, 1 + (log_prob > wanted).sum(-1))


@torch.no_grad()
def of_softmax(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
) -> Expected:
    """Of softmax(W x_n + b), shape [N]; by the compiled kernel where there is one."""
    nll, entropy = weight.new_empty(2, len(targets))
    rank = torch.empty_like(targets)
    for rows in row_chunks(features, len(weight)):
        logits = features[rows] @ weight.T
        if native_assess.can_run(logits):
            native_assess.assess(logits, bias, targets[rows], nll[rows], entropy[rows], rank[rows])
            continue
        logits = logits if bias is None else logits.add_(bias)
        found = of_log_prob(logits.log_softmax(-1), targets[rows])
        nll[rows], entropy[rows], rank[rows] = found.nll, found.entropy, found.rank
    return Expected(nll, entropy, rank)
