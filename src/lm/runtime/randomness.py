"""Every random draw of training, as a pure function of (seed, step, site).

Nothing here or above uses torch's global generator. A generator is reseeded for each draw from a
hash of where and when the draw happens, so the numbers depend neither on what ran before nor on
the number of processes, and a resumed run needs to know its step and nothing else.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

_LEVELS = 1 << 16


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

        On the CPU the rate is taken to the nearest 1/65536, and the scale accordingly, so that the
        expectation is exact.

        Args:
            shape: shape for the streams at hand; `stream_dim` is extended to all global streams
                for the draw and sliced back.
            like: gives dtype and device.
        """
        full = list(shape)
        full[stream_dim] = self.num_streams
        index = [slice(None)] * len(full)
        index[stream_dim] = self.streams
        return self._whole_mask(site, full, rate, like)[tuple(index)]

    def shared_mask(self, site: str, shape: Sequence[int], rate: float, *, like: Tensor) -> Tensor:
        """A mask as `keep_mask` gives, the same for all streams."""
        return self._whole_mask(site, shape, rate, like)

    def uniform(self, site: str, count: int) -> Tensor:
        """Numbers in (0, 1] in float64 on the CPU, the same for all streams."""
        words = np.random.SFC64(derive_seed(self.seed, self.step, site)).random_raw(count)
        return torch.from_numpy(((words >> 11) + 1) * 2.0**-53)

    def _whole_mask(self, site: str, shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
        """The mask for all global streams."""
        draw = _host_mask if like.device.type == "cpu" else _device_mask
        return draw(derive_seed(self.seed, self.step, site), shape, rate, like)


@dataclass(frozen=True, slots=True)
class FixedNoise(Noise):
    """Noise whose masks keep their addresses from step to step, as a captured step needs it.

    A mask is drawn when it is asked for the first time; from then on `at` draws it anew, with the
    numbers that `Noise` would give.

    Attributes:
        masks: by site, shape, rate and dtype.
    """

    masks: dict[tuple[str, tuple[int, ...], float, torch.dtype], Tensor] = field(
        default_factory=dict
    )

    def at(self, step: int) -> "FixedNoise":
        """The noise of another step in the same masks, whose numbers are replaced."""
        for (site, shape, rate, _), mask in self.masks.items():
            seed = derive_seed(self.seed, step, site)
            if mask.device.type == "cpu":
                mask.copy_(_host_mask(seed, shape, rate, mask))
            else:
                _draw_on_device(mask, seed, rate)
        return replace(self, step=step)

    def _whole_mask(self, site: str, shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
        key = (site, tuple(shape), rate, like.dtype)
        if key not in self.masks:
            self.masks[key] = Noise._whole_mask(self, site, shape, rate, like)
        return self.masks[key]


def _host_mask(seed: int, shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    """From 16 random bits an element: 0.5 ns each, where torch's `bernoulli_` takes 15."""
    count = math.prod(shape)
    words = np.random.SFC64(seed).random_raw(-(-count // 4))
    bits = torch.from_numpy(words.view(np.int16)[:count]).view(*shape)
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    mask = torch.empty(shape, dtype=like.dtype)
    # Comparing into the mask's dtype takes a quarter of what comparing and converting does.
    torch.ge(bits, dropped - _LEVELS // 2, out=mask)
    return mask.mul_(_LEVELS / (_LEVELS - dropped))


def _device_mask(seed: int, shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    return _draw_on_device(mask, seed, rate)


def _draw_on_device(mask: Tensor, seed: int, rate: float) -> Tensor:
    draws = torch.Generator(mask.device).manual_seed(seed)
    return mask.bernoulli_(1.0 - rate, generator=draws).div_(1.0 - rate)
