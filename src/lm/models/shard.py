"""A vocabulary that is split over processes: each has some rows of the word vectors.

The embedding and the output layer are most of a model with many words, and their gradient most of
what data parallel processes exchange. Split by words, neither is held nor sent as a whole: for a
window, tokens and features of all streams go to everybody, each computes what its words have to do
with them, and the parts are added up (the output layer as in Megatron-LM: Shoeybi et al. 2019,
section 3).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from lm.runtime.processes import Processes

SPLIT = frozenset({"embedding.weight", "head.weight", "head.bias"})
"""The parameters with a row for each word."""


class Shard:
    """This process's words.

    Attributes:
        rows: the words.
        largest: how many the process with the most words has.
    """

    def __init__(self, processes: Processes, vocab_size: int) -> None:
        self.processes = processes
        self.vocab_size = vocab_size
        self.rows = range(vocab_size)[processes.share(vocab_size)]
        self.largest = -(-vocab_size // processes.size)

    def own(self, whole: Shaped[Tensor, "V ..."]) -> Shaped[Tensor, "K ..."]:
        """Our rows of a tensor with a row for each word, in memory of their own."""
        return whole[self.rows.start : self.rows.stop].clone()

    def place(self, words: Int[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Bool[Tensor, " N"]]:
        """Which of our rows each word is, and whether it is ours: if not, the row means nothing."""
        row = words - self.rows.start
        ours = (row >= 0) & (row < len(self.rows))
        return row.clamp(0, max(len(self.rows) - 1, 0)), ours

    def add_up(
        self, parts: Shaped[Tensor, "N ..."], counts: Sequence[int]
    ) -> Shaped[Tensor, "K ..."]:
        """Our rows of the sum of what all processes have for everybody's rows."""
        return self.processes.deal(parts, counts).sum(0)

    def columns(self, parts: Shaped[Tensor, "N K"], counts: Sequence[int]) -> Shaped[Tensor, "K V"]:
        """Our rows of a matrix whose columns are words, from everybody's columns of all rows."""
        padded = torch.nn.functional.pad(parts, (0, self.largest - parts.shape[1]))
        blocks = self.processes.deal(padded, counts)
        sizes = [share.stop - share.start for share in self.processes.shares(self.vocab_size)]
        return torch.cat([block[:, :n] for block, n in zip(blocks, sizes, strict=True)], dim=1)
