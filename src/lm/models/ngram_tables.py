"""Sorted tables of n-grams, and where the words of a text are in them.

The n-grams of k words stand in one ascending table. The id of an n-gram is its place there, and its
key is (id of its first k − 1 words) · V + its last word; the empty n-gram has the id 0. So a key is
one int64 for any k and V: n-grams times words stays below 2⁶³. An n-gram that no table has gets the
id −1, which as an index means the last entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOTHING = -1
# Rounding of a sum of shares: a million terms have some 1e-10.
_TOLERANCE = 1e-9


def find(keys: Int[Tensor, " n"], wanted: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Places of the wanted keys among the ascending ones; −1 where there is none."""
    if not len(keys):
        return torch.full_like(wanted, NOTHING)
    place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return place.masked_fill_(keys[place] != wanted, NOTHING)


@dataclass(frozen=True, slots=True)
class Level:
    """All n-grams of one length, and how they make a probability of the next shorter one's:

    p(w | h) = share(h w) + backoff(h) p(w | h without its first word)

    Attributes:
        keys: ascending.
        share: by id; the last entry, that of n-grams never seen, is 0.
        backoff: by the context's id; the last entry, that of contexts never seen, is 1.
    """

    keys: Int[Tensor, " n"]
    share: Float[Tensor, " n+1"]
    backoff: Float[Tensor, " m"]

    def mix(
        self,
        lower: Float[Tensor, "*shape"],
        context: Int[Tensor, "*shape"],
        word: Int[Tensor, "*shape"],
        vocab_size: int,
    ) -> Float[Tensor, "*shape"]:
        """p(word | context), from that of the shorter context."""
        ngram = find(self.keys, context * vocab_size + word)
        return self.share[ngram] + self.backoff[context] * lower

    def mix_all(self, lower: Float[Tensor, "N V"], context: Int[Tensor, " N"]) -> None:
        """p(· | context) of every word in place of that of the shorter context."""
        vocab_size = lower.shape[1]
        lower.mul_(self.backoff[context][:, None])
        # The n-grams of a context stand together.
        begin = torch.searchsorted(self.keys, context * vocab_size)
        length = torch.searchsorted(self.keys, (context + 1) * vocab_size) - begin
        row = torch.repeat_interleave(length)
        place = torch.arange(len(row)) + (begin - length.cumsum(0) + length)[row]
        lower[row, self.keys[place] % vocab_size] += self.share[place]

    def fault(self, vocab_size: int) -> str | None:
        """Why these numbers are no distribution over V words, or None."""
        num_contexts = len(self.backoff) - 1
        keys, share, backoff = self.keys, self.share[:-1], self.backoff[:-1]
        if len(keys):
            first, last = int(keys[0]), int(keys[-1])
            ascending = bool((keys[1:] > keys[:-1]).all())  # a difference could overflow
            if first < 0 or last >= num_contexts * vocab_size or not ascending:
                return "keys are not ascending, or name contexts that are not there"
        if self.share[-1] != 0 or self.backoff[-1] != 1:
            return "what was never seen has a share, or does not back off"
        if not bool((share >= 0).all() and (backoff > 0).all()):
            return "a share is negative, or a backoff is not positive"
        total = backoff.index_add(0, keys // vocab_size, share)
        if not bool(((total - 1).abs() < _TOLERANCE).all()):
            return "probabilities of a context do not sum to 1"
        return None


class View:
    """A window behind what was read before it, and how far back each of its words can see.

    Args:
        history: the words before the window, −1 where there is none.
        resets: where true, that word sees nothing before itself.
    """

    def __init__(
        self,
        history: Int[Tensor, "B H"],
        tokens: Int[Tensor, "T B"],
        resets: Bool[Tensor, "T B"] | None = None,
    ) -> None:
        self._before = history.shape[1]
        self._words = torch.cat([history.T, tokens])
        row = torch.arange(len(self._words))[:, None]
        start = torch.where(self._words < 0, row + 1, 0)
        if resets is not None:
            start[self._before :] = torch.where(resets, row[self._before :], 0)
        self._reach = row + 1 - start.cummax(0).values

    @property
    def reach(self) -> Int[Tensor, "T B"]:
        """How many words a word of the window sees, itself included."""
        return self._reach[self._before :]

    def contexts(
        self, tables: Sequence[Int[Tensor, " _"]], vocab_size: int
    ) -> list[Int[Tensor, "T B"]]:
        """Ids of the 0, 1, 2, … words up to each word of the window.

        Args:
            tables: keys of the n-grams of 1, 2, … words.
        """
        context = torch.zeros_like(self._words)
        found = [context]
        for k, keys in enumerate(tables, start=1):
            # The first row has no row before it; it sees one word at most, so that what rolls
            # there is masked.
            context = find(keys, context.roll(1, 0) * vocab_size + self._words)
            context = context.masked_fill_(self._reach < k, NOTHING)
            found.append(context)
        return [ids[self._before :] for ids in found]

    def history(self) -> Int[Tensor, "B H"]:
        """What the window after this one has to know."""
        num_rows = len(self._words)
        first = num_rows - self._reach[-1]  # that the last word sees
        seen = torch.arange(num_rows)[:, None] >= first
        return self._words.masked_fill(~seen, NOTHING)[num_rows - self._before :].T
