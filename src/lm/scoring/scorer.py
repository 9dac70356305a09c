"""A text to rows: encode, read, divide, some of it at a time."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum

from lm.data.tokenizers import Tokenizer
from lm.models import LanguageModel
from lm.scoring.columns import DETAILS, Table
from lm.scoring.reading import STREAMS, Predict, Reader, predictor, read_sentences
from lm.scoring.rows import Assembler
from lm.scoring.source import Part
from lm.scoring.tokens import (
    NO_TOKENS,
    Measures,
    Tokens,
    encoded,
    joined_measures,
    joined_tokens,
)
from lm.scoring.totals import Totals
from lm.scoring.units import Level

# Sentences that are sorted by length together, and the tokens at which there are enough of them.
_POOL, _POOL_TOKENS = 32 * STREAMS, 1 << 16


class Carry(Enum):
    """What the model remembers when a line begins.

    carry: all that it has read, as in `lm evaluate`.
    reset: nothing but that a line begins: every line stands alone.
    """

    carry = "carry"
    reset = "reset"


class Scorer:
    """Makes tables of rows, which follow each other in the order of the text.

    Args:
        columns: those that are wanted; the level of documents has no rows, but totals.
        window: tokens that are read at a time.
        begin: whether a line end comes before the text, so that its first token is predicted too.
        predict: what reads in place of the model as it is; its windows are full but for the last.

    Attributes:
        totals: of what was read so far.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        level: Level,
        columns: Sequence[str],
        window: int = 1024,
        begin: bool = False,
        predict: Predict | None = None,
    ) -> None:
        self.totals = Totals()
        self._model, self._tokenizer, self._window = model, tokenizer, window
        self._begin = tokenizer.line_end if begin else None
        self._whole = predict is not None
        self._predict = predict or predictor(model, detailed=bool(DETAILS.intersection(columns)))
        self._peeks = "entropy_reduction" in columns
        document = level is Level.document
        self._assembler = None if document else Assembler(level, columns, tokenizer)

    def stream(self, parts: Iterable[Part]) -> Iterator[Table]:
        """One text, the state carried throughout."""
        reader = Reader(
            self._model, begin=self._begin, predict=self._predict, window=self._window,
            whole=self._whole,
        )  # fmt: skip
        waiting = NO_TOKENS
        for part in parts:
            tokens = self._encoded([part])
            waiting = joined_tokens([waiting, tokens])
            ready, waiting, measures = _divided(waiting, reader.read(tokens.ids))
            yield from self._add(ready, measures)
            if part.awaited and self._assembler is not None and self._assembler.ends_a_line:
                yield from self._finish(reader.entropy_after)
        ready, _, measures = _divided(waiting, reader.finish())
        yield from self._add(ready, measures)
        yield from self._finish(reader.entropy_after)

    def lines(self, lines: Iterable[list[Part]]) -> Iterator[Table]:
        """Lines that stand alone, each after a line end."""
        pool: list[Tokens] = []
        count = 0
        for parts in lines:
            pool.append(self._encoded(parts))
            count += len(pool[-1])
            if len(pool) == _POOL or count >= _POOL_TOKENS or parts[-1].awaited:
                yield from self._read_pool(pool)
                pool, count = [], 0
        yield from self._read_pool(pool)

    def texts(self, text: bytes, state: Carry) -> Iterator[Table]:
        """A text that is at hand."""
        if state is Carry.carry:
            return self.stream([Part(text)])
        return self.lines([Part(line)] for line in re.findall(rb"[^\n]*\n|[^\n]+", text))

    def _read_pool(self, pool: list[Tokens]) -> Iterator[Table]:
        if not pool:
            return
        measures = read_sentences(
            self._model, [tokens.ids for tokens in pool], begin=self._tokenizer.line_end,
            predict=self._predict, window=self._window,
        )  # fmt: skip
        yield from self._add(joined_tokens(pool), joined_measures(measures))
        yield from self._finish(lambda: math.nan)

    def _encoded(self, parts: Sequence[Part]) -> Tokens:
        tokens = joined_tokens([encoded(self._tokenizer, part.text) for part in parts])
        self.totals.see(tokens)
        return tokens

    def _add(self, tokens: Tokens, measures: Measures) -> Iterator[Table]:
        self.totals.add(measures)
        if self._assembler is not None:
            yield self._assembler.add(tokens, measures)

    def _finish(self, entropy_after: Callable[[], float]) -> Iterator[Table]:
        if self._assembler is not None:
            yield self._assembler.finish(entropy_after() if self._peeks else math.nan)


def _divided(waiting: Tokens, measures: Measures) -> tuple[Tokens, Tokens, Measures]:
    """Tokens that were read, those that still wait, and what was expected of the former."""
    if len(measures) == len(waiting):
        return waiting, NO_TOKENS, measures
    return *waiting.split(len(measures)), measures
