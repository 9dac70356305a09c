"""The copy task: symbols, a wait, a marker, and the same symbols again.

    a d b Wait Wait Wait Copy a d b

The symbols are uniform and cost log K each, everything else follows from the position in the line
and costs nothing. How far back the first symbol lies is num_copied + lag + 1 steps at every one of
the recalled positions, so that the gradient that teaches it has to come from there (Hochreiter &
Schmidhuber 1997, section 5; Arjovsky, Shah & Bengio 2016, section 4.1).

When the marker comes has to be known too. With waits that look alike it is found by counting, a
memory of another kind: an Elman network that recalls nothing can learn to count. Numbered waits,

    a d b WaitA WaitB WaitC Copy a d b

say it themselves, so that nothing is left to remember but the symbols.
"""

import math
import string
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lm import checks
from lm.data.synthetic.config import SyntheticConfig
from lm.data.synthetic.process import LINE_END, Draw, Process, spellings

WAIT, MARKER = b"Wait", b"Copy"


class Copying(Process):
    """Lines of num_copied symbols, `lag` waits, the marker, the symbols again and a line end.

    The floor of a line is num_copied · log K nats over its 2 · num_copied + lag + 2 symbols.
    """

    def __init__(self, num_symbols: int, num_copied: int, lag: int, *, numbered: bool) -> None:
        self.num_symbols, self.num_copied, self.lag = num_symbols, num_copied, lag
        numbers = spellings(lag, string.ascii_uppercase) if numbered else [b""]
        self.waits = [WAIT + number for number in numbers]
        self.words = [*spellings(num_symbols), *self.waits, MARKER, LINE_END]
        self.first = np.zeros(len(self.words))
        self.first[:num_symbols] = 1 / num_symbols
        self.line_length = 2 * num_copied + lag + 2
        self.entropy_rate = num_copied * math.log(num_symbols) / self.line_length

    def draw(self, num_symbols: int, draws: np.random.Generator) -> Draw:
        num_lines = -(-num_symbols // self.line_length)
        marker, end = len(self.words) - 2, len(self.words) - 1
        copied = draws.integers(self.num_symbols, size=(num_lines, self.num_copied))
        symbols = np.empty((num_lines, self.line_length), np.int64)
        symbols[:, : self.num_copied] = copied
        waits = self.num_symbols + np.arange(self.lag) % max(len(self.waits), 1)
        symbols[:, self.num_copied : self.num_copied + self.lag] = waits
        symbols[:, self.num_copied + self.lag] = marker
        symbols[:, -self.num_copied - 1 : -1] = copied
        symbols[:, -1] = end
        nats = np.zeros(symbols.shape)
        nats[:, : self.num_copied] = math.log(self.num_symbols)
        recalled = np.zeros(symbols.shape, bool)
        recalled[:, -self.num_copied - 1 : -1] = True
        return Draw(symbols.ravel(), nats.ravel(), recalled.ravel())


@dataclass(kw_only=True, slots=True)
class CopyConfig(SyntheticConfig):
    """The copy task, a line for each sequence.

    Attributes:
        num_symbols: K.
        num_copied: symbols to remember in a line.
        lag: waits before the marker; 0 is none.
        numbered: each wait is a word of its own, so that none have to be counted.
    """

    kind: ClassVar[str] = "copy"

    num_symbols: int = 8
    num_copied: int = 5
    lag: int = 20
    numbered: bool = False

    def __post_init__(self) -> None:
        SyntheticConfig.__post_init__(self)
        checks.at_least("data.num_symbols", self.num_symbols, 2)
        checks.at_least("data.num_copied", self.num_copied, 1)
        checks.at_least("data.lag", self.lag, 0)
        for name in ("num_symbols", "num_copied", "lag"):
            checks.at_most(f"data.{name}", getattr(self, name), 1 << 20)

    def process(self, draws: np.random.Generator) -> Copying:
        return Copying(self.num_symbols, self.num_copied, self.lag, numbered=self.numbered)
