"""What is known of a text whose source is known: the nats of each byte under the source itself.

No model is better on average than the source that drew the text, so that these nats are the floor
under a model's own. They are kept by the byte, in which every tokenizer's tokens can be measured.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float, UInt8
from numpy import ndarray

NATS_DTYPE, MARKS_DTYPE = "<f8", "<u1"
# Marks of a byte, and of a token, that belongs to a symbol which follows from earlier ones.
RECALLED, RECALL_ENDS = 1, 2


@dataclass(frozen=True, slots=True)
class Truth:
    """Files with an item for each byte of a text.

    Attributes:
        nats: float64, little-endian; a symbol's stand at its last byte.
        recalled: uint8: `RECALLED` for the letters of a symbol that follows from ones before it,
            `RECALL_ENDS` for the last of them, else 0; None where there are no such symbols.
    """

    nats: Path
    recalled: Path | None = None


class TokenTruth(NamedTuple):
    """The same for some consecutive tokens.

    Attributes:
        nats: summed over the bytes of each token.
        recalled: the highest mark in it.
    """

    nats: Float[ndarray, " N"]
    recalled: UInt8[ndarray, " N"] | None
