"""What a method is tuned or measured on: the targets of a split, read as one stream."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lm.data.corpus import Unit
from lm.data.store import TokenStore
from lm.data.streams import Streams, Window
from lm.metrics.perplexity import Score


@dataclass(frozen=True, slots=True)
class Text:
    """A split, or its beginning.

    Attributes:
        name: of the split.
        unit: where the state is reset.
        limit: of targets; None is all of them.
    """

    name: str
    store: TokenStore
    unit: Unit = Unit.stream
    limit: int | None = None

    @property
    def num_targets(self) -> int:
        """N: all tokens but the first, which is context, up to the limit."""
        whole = len(self.store) - 1
        return whole if self.limit is None else min(whole, self.limit)

    def first(self, limit: int | None) -> "Text":
        """The first `limit` targets; the same text where there are no more, or no limit."""
        if limit is None or limit >= self.num_targets:
            return self
        return replace(self, limit=limit)

    def beginning(self, limit: int | None) -> "Text":
        """The first `limit` targets, unless it is limited already."""
        return self if self.limit is not None else self.first(limit)

    def describe(self) -> str:
        """Its name, and how much of it."""
        whole = self.num_targets == len(self.store) - 1
        return self.name if whole else f"the first {self.num_targets:,} tokens of {self.name}"

    def bar(self, doing: str) -> "tqdm[NoReturn]":
        """A bar of its targets, on terminals."""
        return tqdm(
            total=self.num_targets,
            desc=f"{doing} {self.name}",
            unit="tok",
            unit_scale=True,
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def windows(self, length: int, doing: str) -> Iterator[Window]:
        """Every target once and in order, `length` at a time, with a bar on terminals."""
        left = self.num_targets
        with self.bar(doing) as bar:
            for part in Streams(self.store, 1, length, self.unit).evaluation_windows():
                part = _first_steps(part, left)
                left -= part.num_targets
                yield part
                bar.update(part.num_targets)
                if not left:
                    return

    def excess(self, nats: Float[Tensor, " N"]) -> Float[Tensor, " N"] | None:
        """Nats of each target above those of the text's source; None where that is unknown."""
        floor = self.store.floor
        return None if floor is None else nats.double() - torch.from_numpy(np.array(floor))

    def score(self, nats: Float[Tensor, " N"]) -> Score:
        """What the nats of all targets of the split amount to."""
        assert len(nats) == len(self.store) - 1, (len(nats), len(self.store))
        return Score(
            nats=nats.double().sum().item(),
            num_tokens=len(nats),
            num_bytes=self.store.predicted_bytes,
            num_words=self.store.header.predicted_words,
            num_streams=1,
            lossy=self.store.lossless_reason(),
            floor_nats=self.store.floor_nats,
        )


def _first_steps(part: Window, steps: int) -> Window:
    if len(part.tokens) <= steps:
        return part
    resets = None if part.resets is None else part.resets[:steps]
    return Window(part.tokens[:steps], part.targets[:steps], resets)
