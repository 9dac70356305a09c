"""Interpolated modified Kneser–Ney smoothing: counts of n-grams, and the numbers that follow.

Chen and Goodman, An empirical study of smoothing techniques for language modeling (1999):

    p(w | h) = (c(h w) − D(c(h w))) / Σ_v c(h v)  +  Σ_v D(c(h v)) / Σ_v c(h v) · p(w | h′)

where h′ is h without its first word, D(c) is 0, D₁, D₂, D₃ for c = 0, 1, 2, ≥ 3, and p of the
empty context is interpolated with 1/V, so that every word has a probability above 0.

The longest n-grams count how often they occur, shorter ones how many different words precede them.
One that nothing precedes, since a text or unit begins with it, counts how often it does so: there
it is the longest that there is, as one with the begin symbol is for Heafield et al., Scalable
modified Kneser–Ney language model estimation (2013).
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lm.models.ngram_tables import NOTHING, Level, View, find

Discounts = tuple[float, float, float]
# Where a text gives no estimate: what KenLM takes.
FALLBACK: Discounts = (0.5, 1.0, 1.5)


class Tally:
    """Sums of weights by key, over a text that comes in parts.

    Parts are merged once they are together as long as what was merged before, so that each key is
    sorted a logarithmic number of times. Memory: some 100 bytes per different key.
    """

    def __init__(self) -> None:
        empty = torch.empty(0, dtype=torch.int64)
        self._parts = [(empty, empty)]

    def add(self, keys: Int[Tensor, " n"], weights: Int[Tensor, " n"]) -> None:
        """Add weights to the keys' sums; a key may occur several times."""
        self._parts.append(_summed(keys, weights))
        merged, *new = self._parts
        if sum(len(part) for part, _ in new) >= len(merged[0]):
            self._parts = [self.total()]

    def total(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """The keys, ascending, and their sums."""
        keys, weights = zip(*self._parts, strict=True)
        return _summed(torch.cat(keys), torch.cat(weights))


def _summed(
    keys: Int[Tensor, " n"], weights: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    ordered, order = keys.sort()
    distinct, place = torch.unique_consecutive(ordered, return_inverse=True)
    sums = torch.zeros_like(distinct).index_add_(0, place, weights[order])
    return distinct, sums


class Counter:
    """Counts n-grams of 1, 2, … `order` words, one length in each pass over the text.

    Args:
        order: of the longest.

    Attributes:
        keys, counts: of each length done; ids are as in `ngram_tables`.
    """

    def __init__(self, order: int, vocab_size: int) -> None:
        self.order = order
        self.vocab_size = vocab_size
        self.keys: list[Tensor] = []
        self.counts: list[Tensor] = []
        self._begin_pass()
        # Every word has its place, seen or not.
        words = torch.arange(vocab_size)
        self._tally.add(words, torch.zeros_like(words))

    def _begin_pass(self) -> None:
        self._tally = Tally()
        self._history: Tensor | None = None

    def read(
        self,
        tokens: Int[Tensor, "T B"],
        targets: Int[Tensor, "T B"],
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> None:
        """Count in the window after the one before, as a model reads it."""
        if self._history is None:
            self._history = nothing_read(tokens.shape[1], self.order)
        view, before = View(self._history, tokens, resets), len(self.keys)
        self._history = view.history()
        key = view.contexts(self.keys, self.vocab_size)[-1] * self.vocab_size + targets
        there = view.reach >= before
        weight = torch.ones_like(key)
        if before + 1 < self.order:
            weight = (view.reach == before).to(key.dtype)  # nothing precedes these
        self._tally.add(key[there], weight[there])

    def end_pass(self) -> None:
        """The text has been read once more; after the last time, count what precedes n-grams."""
        keys, counts = self._tally.total()
        self.keys.append(keys)
        self.counts.append(counts)
        self._begin_pass()
        if len(self.keys) == self.order:
            self._add_preceding_words()

    def _add_preceding_words(self) -> None:
        """An n-gram without its first word is one that this word precedes."""
        size = self.vocab_size
        rest = torch.zeros(size, dtype=torch.int64)  # of each n-gram, without its first word
        for shorter, counts, keys in zip(self.keys, self.counts, self.keys[1:], strict=False):
            rest = find(shorter, rest[keys // size] * size + keys % size)
            counts += torch.bincount(rest, minlength=len(counts))

    def levels(self) -> list[tuple[Level, Discounts]]:
        """What the counts come to, by length of the n-grams."""
        num_contexts = [1, *map(len, self.keys[:-1])]
        parts = zip(self.keys, self.counts, num_contexts, strict=True)
        return [smooth(*part, self.vocab_size) for part in parts]


def nothing_read(num_streams: int, order: int) -> Int[Tensor, "B H"]:
    """The history before the first word."""
    return torch.full((num_streams, order - 1), NOTHING)


def estimate_discounts(counts: Int[Tensor, " n"]) -> Discounts:
    """D₁, D₂, D₃ from how many n-grams have each of the counts 1 to 4: n₁ … n₄.

    Y = n₁ / (n₁ + 2 n₂),  D_k = k − (k + 1) Y n_{k+1} / n_k   (Chen and Goodman 1999)

    A text that is too small, or whose symbols are too few, may give no D_k in (0, k], which is what
    leaves every probability above 0; then all three are `FALLBACK`.
    """
    n = torch.bincount(counts.clamp(max=5), minlength=5).tolist()
    if 0 in n[1:5]:
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    one, two, three = (k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return (one, two, three) if 0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3 else FALLBACK


def smooth(
    keys: Int[Tensor, " n"], counts: Int[Tensor, " n"], num_contexts: int, vocab_size: int
) -> tuple[Level, Discounts]:
    """The shares that discounts leave to n-grams of one length, and the backoff they pay for."""
    discounts = estimate_discounts(counts)
    exact = torch.float64
    discount = torch.tensor([0, *discounts], dtype=exact)[counts.clamp(max=3)]
    context = keys // vocab_size
    total = torch.zeros(num_contexts, dtype=exact).index_add_(0, context, counts.to(exact))
    taken = torch.zeros(num_contexts, dtype=exact).index_add_(0, context, discount)
    divisor = total.clamp(min=1)  # of a context that nothing follows: its share is never asked for
    share = (counts - discount) / divisor[context]
    backoff = torch.where(total > 0, taken / divisor, 1)
    unseen = torch.tensor([0, 1], dtype=exact)
    level = Level(keys, torch.cat([share, unseen[:1]]), torch.cat([backoff, unseen[1:]]))
    return level, discounts
