"""How long each step's window is, and hence at which step an epoch ends: a function of the seed."""

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from lm import checks
from lm.data.streams import Streams
from lm.errors import ConfigError
from lm.runtime.randomness import derive_seed

_BLOCK = 1024
# Steps that are walked to know where an epoch ends: some seconds, and many weeks of training.
_MOST_WALKED = 1 << 25


@dataclass(kw_only=True, slots=True)
class RandomWindowConfig:
    """Windows of random length (Merity et al. 2018, section 5).

    Otherwise every epoch cuts the text at the same places, and the tokens at a window's end never
    send a gradient far back. A step's learning rate goes with its length, so that a short window
    does not count for more per token.

    Attributes:
        std: standard deviation of the length in steps; None is off.
        half_probability: of a window of about half the length.
        minimum: the shortest window, unless the epoch ends.
    """

    std: float | None = None
    half_probability: float = 0.05
    minimum: int = 5

    def __post_init__(self) -> None:
        checks.positive("trainer.random_window.std", self.std)
        checks.fraction("trainer.random_window.half_probability", self.half_probability)
        checks.at_least("trainer.random_window.minimum", self.minimum, 1)
        if self.std is None:
            checks.no_effect(
                "trainer.random_window", self, ("half_probability", "minimum"),
                "std=null draws no lengths", "Set trainer.random_window.std",
            )  # fmt: skip


class Windows:
    """The walk of a run over its streams, window by window and epoch by epoch."""

    def __init__(self, streams: Streams, config: RandomWindowConfig, seed: int) -> None:
        self._streams, self._config, self._seed = streams, config, seed
        self._first = [0]  # step at which each epoch begins
        self._drawn: dict[int, list[int]] = {}

    def length(self, step: int) -> int:
        """T of a step's window; the end of the epoch may cut it."""
        if self._config.std is None:
            return self._streams.window_length
        block, index = divmod(step, _BLOCK)
        if block not in self._drawn:
            self._drawn = {block: self._draw(block)}
        return self._drawn[block][index]

    def lr_factor(self, num_steps: int) -> float:
        """What the learning rate of a window of this length is multiplied with."""
        return 1.0 if self._config.std is None else num_steps / self._streams.window_length

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        if self._config.std is None:
            return step // self._streams.windows_per_epoch
        self._check_walk(step)
        while self._first[-1] <= step:
            self._walk_epoch()
        return bisect_right(self._first, step) - 1

    def steps_in(self, epochs: int) -> int:
        """Steps of so many epochs."""
        if self._config.std is None:
            return epochs * self._streams.windows_per_epoch
        self._check_walk(epochs * self._streams.windows_per_epoch)
        while len(self._first) <= epochs:
            self._walk_epoch()
        return self._first[epochs]

    def steps_for(self, tokens: int) -> int:
        """Steps until so many targets have been trained."""
        epochs, rest = divmod(tokens, self._streams.targets_per_epoch)
        first = step = self.steps_in(epochs)
        position = 0
        if self._config.std is None:
            return first + -(-rest // (self._streams.num_streams * self._streams.window_length))
        while position * self._streams.num_streams < rest:
            position += self.length(step)
            step += 1
        return step

    def tokens_in(self, steps: int) -> int:
        """Targets that so many steps train."""
        epoch = self.epoch_of(steps)
        first = self.steps_in(epoch)
        if self._config.std is None:
            position = (steps - first) * self._streams.window_length
        else:
            position = sum(self.length(step) for step in range(first, steps))
        return (epoch * self._streams.length + position) * self._streams.num_streams

    def _check_walk(self, steps: int) -> None:
        """Refuse what would not end; every length on the way has to be drawn."""
        if steps > _MOST_WALKED:
            raise ConfigError(
                f"trainer.random_window.std={self._config.std:g} draws the length of each of"
                f" {steps:,} steps before the run begins, at most {_MOST_WALKED:,}",
                "Set a smaller limit, such as trainer.max_epochs=100 or trainer.max_steps=100000.",
            )

    def _walk_epoch(self) -> None:
        step, position = self._first[-1], 0
        while position < self._streams.length:
            position += self.length(step)
            step += 1
        self._first.append(step)

    def _draw(self, block: int) -> list[int]:
        """The lengths of a block of steps."""
        std, full = self._config.std, self._streams.window_length
        assert std is not None
        seed = derive_seed(self._seed, block, "trainer.random_window")
        words = np.random.SFC64(seed).random_raw(3 * _BLOCK)
        which, radius, angle = (((words >> 11) + 1) * 2.0**-53).reshape(3, _BLOCK)
        normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * math.pi * angle)  # Box & Muller 1958
        base = np.where(which <= self._config.half_probability, full / 2, full)
        lengths = (base + std * normal).astype(np.int64)
        return [max(self._config.minimum, int(length)) for length in lengths]
