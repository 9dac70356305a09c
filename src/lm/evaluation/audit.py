"""Checks that a perplexity is one: that the model cannot cheat, and that evaluation is exact.

Each check is a way in which published numbers have been wrong: predictions that see the future,
distributions that do not sum to one, targets left out or counted twice, a state that is lost
between windows, a loss that is not that of the distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm.data.corpus import Unit
from lm.errors import AuditError
from lm.evaluation.exact import losses
from lm.evaluation.text import Text
from lm.models import LanguageModel
from lm.runtime.compute import exact_products
from lm.runtime.randomness import generator

# Targets that the checks read; some of them, log-probabilities of all words, only so many.
TOKENS = 2048
SHORT = 48
WINDOWS = (7, 64, 1024)
# Rounding in float32, relative to 1 + |value|.
TOLERANCE = 1e-6
SUM_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what holds, and the numbers that say so."""

    name: str
    passed: bool
    detail: str

    def describe(self) -> str:
        """A line for people."""
        return f"{'PASS' if self.passed else 'FAIL'}  {self.name}: {self.detail}"


@torch.no_grad()
def audit(model: LanguageModel, text: Text) -> list[Check]:
    """All checks, on the beginning of a text."""
    some = text.first(TOKENS)
    short = some.first(SHORT)
    checks: list[Callable[[LanguageModel, Text], Check]] = [
        _causal, _blind_to_targets, _normalised, _consistent, _carried, _separate,
    ]  # fmt: skip
    with exact_products():
        found = [check(model, short) for check in checks]
        found += [_counted(model, some), _invariant(model, some)]
        if text.unit is not Unit.stream:
            found.append(_reset(model, short))
    return found


def require(checks: list[Check]) -> None:
    """Refuse a model that failed.

    Raises:
        AuditError: naming the checks.
    """
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise AuditError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}",
            "A perplexity of this model would not be one; mend the model.",
        )


def _block(model: LanguageModel, text: Text) -> tuple[Int[Tensor, "T 1"], Int[Tensor, "T 1"]]:
    """Tokens and targets of a short text."""
    ids = torch.from_numpy(text.store[0 : text.num_targets + 1])[:, None].to(model.device)
    return ids[:-1], ids[1:]


def _other(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Random tokens, each another one than it was."""
    if model.vocab_size == 1:
        return tokens
    draws = generator(1, 0, "audit")
    by = torch.randint(1, model.vocab_size, tokens.shape, generator=draws).to(tokens.device)
    return (tokens + by) % model.vocab_size


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest |a − b| / (1 + |b|); what is infinite on both sides does not differ."""
    a, b = a.cpu().double(), b.cpu().double()
    apart = (a - b).abs() / (1 + b.abs())
    return torch.where(a == b, torch.zeros_like(apart), apart).nan_to_num(float("inf")).max().item()


def _within(name: str, what: str, distance: float, tolerance: float = TOLERANCE) -> Check:
    return Check(name, distance <= tolerance, f"{what} by {distance:.1e} (allowed {tolerance:.0e})")


def _causal(model: LanguageModel, text: Text) -> Check:
    """Whatever comes after a position, the distribution there stays."""
    tokens, _ = _block(model, text)
    cuts = sorted({len(tokens) // 4, len(tokens) // 2, len(tokens) - 1} - {0})
    before, _ = model.log_prob(tokens)
    moved = [0.0]
    for cut in cuts:
        changed = torch.cat([tokens[:cut], _other(model, tokens[cut:])])
        moved.append(_distance(model.log_prob(changed)[0][:cut], before[:cut]))
    return _within("causality", "changing the future moves log p", max(moved))


def _blind_to_targets(model: LanguageModel, text: Text) -> Check:
    """The loss of a position depends on no other position's target."""
    tokens, targets = _block(model, text)
    cut = len(tokens) // 2
    changed = torch.cat([targets[:cut], _other(model, targets[cut:])])
    before, after = (model(tokens, some).nll[:cut] for some in (targets, changed))
    moved = _distance(after, before) if cut else 0.0
    return _within("blindness", "changing later targets moves the loss", moved)


def _normalised(model: LanguageModel, text: Text) -> Check:
    """Σ_w p(w) = 1 everywhere."""
    log_p, _ = model.log_prob(_block(model, text)[0])
    total = log_p.cpu().double().exp().sum(-1)
    off = (total - 1).abs().nan_to_num(float("inf")).max().item()
    return _within("normalisation", "Σ p differs from 1", off, SUM_TOLERANCE)


def _consistent(model: LanguageModel, text: Text) -> Check:
    """The loss that is summed up is −log p of the target."""
    tokens, targets = _block(model, text)
    log_p, _ = model.log_prob(tokens)
    nll = model(tokens, targets).nll
    apart = _distance(nll, -log_p.gather(2, targets[..., None]).squeeze(2))
    return _within("loss", "nats differ from -log p", apart, SUM_TOLERANCE)


def _carried(model: LanguageModel, text: Text) -> Check:
    """Two windows with the state carried over are one."""
    tokens, targets = _block(model, text)
    cut = max(1, len(tokens) // 3)
    whole = model(tokens, targets).nll
    first = model(tokens[:cut], targets[:cut])
    parts = [first.nll]
    if cut < len(tokens):
        parts.append(model(tokens[cut:], targets[cut:], first.state).nll)
    return _within(
        "state", "two windows differ from one", _distance(torch.cat(parts), whole), SUM_TOLERANCE
    )


def _separate(model: LanguageModel, text: Text) -> Check:
    """Streams that are read together do not know of each other."""
    tokens, targets = _block(model, text)
    alone = model(tokens, targets).nll
    other = _other(model, tokens)
    both = model(torch.cat([tokens, other], 1), torch.cat([targets, targets], 1)).nll[:, :1]
    return _within(
        "streams", "a second stream moves the first", _distance(both, alone), SUM_TOLERANCE
    )


def _counted(model: LanguageModel, text: Text) -> Check:
    """Every target but the first token is predicted once, in order."""
    wanted = torch.from_numpy(text.store[1 : text.num_targets + 1])
    right = True
    for window in WINDOWS:
        parts = [part.targets[:, 0] for part in text.windows(window, "audit")]
        right &= torch.equal(torch.cat(parts), wanted)
    nats = _nats(model, text, WINDOWS[0])
    right &= len(nats) == len(wanted)
    return Check("counts", right, f"{len(nats):,} predictions for {len(wanted):,} targets")


def _invariant(model: LanguageModel, text: Text) -> Check:
    """The chunk length changes nothing."""
    totals = torch.stack([_nats(model, text, window).sum() for window in WINDOWS])
    spread = ((totals.max() - totals.min()) / totals.max()).nan_to_num(float("inf")).item()
    listed = ", ".join(map(str, WINDOWS))
    return _within("chunks", f"windows of {listed} tokens differ", spread)


def _reset(model: LanguageModel, text: Text) -> Check:
    """After a reset the model knows nothing of what was before."""
    tokens, targets = _block(model, text)
    cut = max(1, len(tokens) // 2)
    resets = torch.zeros(tokens.shape, dtype=torch.bool)
    resets[cut:][:1] = True
    after = model(tokens, targets, resets=resets).nll[cut:]
    fresh = model(tokens[cut:], targets[cut:]).nll if cut < len(tokens) else after
    apart = _distance(after, fresh) if len(after) else 0.0
    return _within("resets", "after a reset differs from fresh", apart, SUM_TOLERANCE)


def _nats(model: LanguageModel, text: Text, window: int) -> Float[Tensor, " N"]:
    return torch.cat(
        [nll[:, 0].cpu().double() for _, nll in losses(model, text.windows(window, "audit"))]
    )
