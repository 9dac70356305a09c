"""Every random draw of training, as a pure function of (seed, step, site).

Nothing here or above uses torch's global generator. A generator is reseeded for each draw from a
hash of where and when the draw happens, so the numbers depend neither on what ran before nor on
the number of processes, and a resumed run needs to know its step and nothing else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


def derive_seed(seed: int, step: int, site: str) -> int:
    """A 63-bit seed for the draw at `site` (a dotted name) in training step `step`."""
    digest = hashlib.blake2b(f"{seed}/{step}/{site}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(
    seed: int, step: int, site: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator for one site of one step."""
    return torch.Generator(device).manual_seed(derive_seed(seed, step, site))


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of one training step; passing none to a model means evaluation.

    Masks are drawn for all `num_streams` global streams and then sliced, so that a step split
    over micro-batches or processes sees the numbers of the whole step.

    Attributes:
        streams: the slice of the global streams that this forward pass computes.
    """

    seed: int
    step: int
    num_streams: int
    streams: slice = field(default_factory=lambda: slice(None))

    def for_streams(self, streams: slice) -> "Noise":
        """The same noise seen from a slice of the streams."""
        return replace(self, streams=streams)

    def keep_mask(
        self,
        site: str,
        shape: Sequence[int],
        rate: float,
        *,
        stream_dim: int,
        like: Tensor,
    ) -> Tensor:
        """Inverted-dropout mask: 0 with probability `rate`, else 1 / (1 − rate).

        Args:
            shape: shape for the streams at hand; `stream_dim` is extended to all global streams
                for the draw and sliced back.
            like: gives dtype and device.
        """
        full = list(shape)
        full[stream_dim] = self.num_streams
        draws = generator(self.seed, self.step, site, like.device)
        mask = torch.empty(full, dtype=like.dtype, device=like.device)
        mask.bernoulli_(1.0 - rate, generator=draws).div_(1.0 - rate)
        index = [slice(None)] * len(full)
        index[stream_dim] = self.streams
        return mask[tuple(index)]
