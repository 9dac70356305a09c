"""A split as parallel streams, read window by window: what truncated BPTT walks along.

A split of N tokens has N − 1 targets; its first token is context only. The streams are contiguous
pieces of the targets, and a window is the next T steps of all of them, so that the state flows from
window to window. The position is one integer: seeking is O(1).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lm.data.corpus import Unit
from lm.data.store import TokenStore
from lm.errors import DataError


@dataclass(frozen=True, slots=True)
class Window:
    """Up to T steps of some streams, on the CPU.

    Attributes:
        resets: where the state returns to its initial value before the token is read; None is
            nowhere. That token ends a unit and serves as the begin symbol of the next.
    """

    tokens: Int[Tensor, "T B"]
    targets: Int[Tensor, "T B"]
    resets: Bool[Tensor, "T B"] | None = None

    def first(self, num_streams: int) -> "Window":
        """The first so many of the streams."""
        resets = None if self.resets is None else self.resets[:, :num_streams]
        return Window(self.tokens[:, :num_streams], self.targets[:, :num_streams], resets)

    @property
    def num_targets(self) -> int:
        """T·B."""
        return self.targets.numel()


class Streams:
    """`num_streams` contiguous streams over a split.

    Training gives every stream the same length and leaves out the remainder of fewer than B
    targets. Evaluation counts every target once: the first streams are one step longer.

    Attributes:
        own: those that this process reads, of all `num_streams`.
        length: steps that all streams have.
        remainder: targets beyond `num_streams · length`.
    """

    def __init__(
        self,
        store: TokenStore,
        num_streams: int,
        window: int,
        unit: Unit,
        own: slice = slice(None),
    ) -> None:
        self.store = store
        self.num_streams = num_streams
        self.own = range(num_streams)[own]
        self.window_length = window
        self.unit = unit
        self.length, self.remainder = divmod(len(store) - 1, num_streams)

    @classmethod
    def for_training(
        cls,
        store: TokenStore,
        num_streams: int,
        window: int,
        unit: Unit,
        *,
        label: str,
        own: slice = slice(None),
    ) -> "Streams":
        """Streams of equal length.

        Raises:
            DataError: the split is shorter than B·(T + 1) tokens.
        """
        minimum = num_streams * (window + 1)
        if len(store) < minimum:
            raise DataError(
                f"{label} has {len(store)} tokens, but trainer.batch_size={num_streams} streams"
                f" of trainer.window={window} need at least {minimum}",
                "Give more text, or set a smaller trainer.batch_size or trainer.window.",
            )
        return cls(store, num_streams, window, unit, own)

    @property
    def windows_per_epoch(self) -> int:
        """Windows until every stream is read, the last one possibly shorter."""
        return -(-self.length // self.window_length)

    @property
    def targets_per_epoch(self) -> int:
        """Targets that an epoch of training predicts."""
        return self.length * self.num_streams

    def window(self, position: int, length: int | None = None) -> Window:
        """The window that starts at step `position` of every stream of our own.

        Args:
            length: in steps; None is `window_length`. The end of the streams cuts it.
        """
        assert 0 <= position < self.length, position
        steps = min(length or self.window_length, self.length - position)
        starts = [stream * self.length + position for stream in self.own]
        return self.read(starts, steps)

    @property
    def evaluation_starts(self) -> list[int]:
        """Where each stream of evaluation, of our own, begins in the split."""
        return [k * self.length + min(k, self.remainder) for k in self.own]

    def evaluation_windows(self) -> Iterator[Window]:
        """Every target once: all windows, then the longer streams' last step.

        The first `remainder` streams hold one target more, so the last window has fewer streams
        (the first ones) than those before. Processes that share the streams get equally many
        windows, in which some may have no stream.
        """
        starts = self.evaluation_starts
        for position in range(0, self.length, self.window_length):
            steps = min(self.window_length, self.length - position)
            yield self.read([start + position for start in starts], steps)
        if self.remainder:
            longer = len(range(self.remainder)[self.own.start : self.own.stop])
            yield self.read([start + self.length for start in starts[:longer]], 1)

    def read(self, starts: list[int], steps: int) -> Window:
        """`steps` steps from each of some positions of the split, a stream for each."""
        columns = np.empty((steps + 1, len(starts)), np.int64)
        for column, start in enumerate(starts):
            columns[:, column] = self.store[start : start + steps + 1]
        block = torch.from_numpy(columns)
        resets = None if self.unit is Unit.stream else self._resets(starts, steps)
        return Window(block[:-1], block[1:], resets)

    def _resets(self, starts: list[int], steps: int) -> Tensor:
        resets = torch.zeros(steps, len(starts), dtype=torch.bool)
        for column, start in enumerate(starts):
            ends = self.store.unit_ends(start, start + steps)
            resets[torch.from_numpy(ends.astype(np.int64)) - start, column] = True
        return resets
