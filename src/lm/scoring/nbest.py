"""Hypotheses of a recogniser, ranked anew with a language model.

Each line is `id score text`; lines of one id stand together. A hypothesis is read as a sentence of
its own, between a line end that begins it and one that ends it:

    combined = score + weight · ln p(text) + word_bonus · words

in natural logarithms, higher is better. Where scores are costs, such as negated logarithms, they
count with a minus.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from lm.data.tokenizers import Tokenizer
from lm.errors import DataError
from lm.models import LanguageModel
from lm.scoring.columns import Table
from lm.scoring.reading import STREAMS, predictor, read_sentences
from lm.scoring.source import Part
from lm.scoring.tokens import encoded
from lm.scoring.totals import Totals

COLUMNS = ("id", "combined", "score", "log_prob", "words", "unknown", "text")
# Hypotheses that are sorted by length together.
_POOL = 32 * STREAMS


@dataclass(frozen=True, slots=True)
class Rescoring:
    """How scores are combined.

    Attributes:
        weight: of ln p(text).
        word_bonus: for each word; negative is a penalty.
        costs: the scores given are costs, lower is better.
        best: only the best of each id.
    """

    weight: float = 1.0
    word_bonus: float = 0.0
    costs: bool = False
    best: bool = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A line.

    Attributes:
        utterance: its id.
    """

    utterance: bytes
    score: float
    text: bytes


@dataclass(frozen=True, slots=True)
class Ranked:
    """A hypothesis with what the model says of it.

    Attributes:
        log_prob: ln p(text).
        unknown: tokens that stand for something outside the vocabulary.
    """

    hypothesis: Hypothesis
    combined: float
    log_prob: float
    words: int
    unknown: int


class Rescorer:
    """Ranks hypotheses.

    Attributes:
        totals: of all that was read.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, rule: Rescoring, *, window: int = 1024
    ) -> None:
        self.totals = Totals()
        self._model, self._tokenizer, self._rule, self._window = model, tokenizer, rule, window
        self._predict = predictor(model, detailed=False)

    def ranked(
        self, lines: Iterable[list[Part]], name: str, *, at_once: bool = False
    ) -> Iterator[Table]:
        """Tables of hypotheses, by id in the order of the lines, the best first.

        Args:
            name: of what the lines are from, for messages.
            at_once: rank each id when its last line is there, rather than many together.

        Raises:
            DataError: a line is no hypothesis, or the lines of an id do not stand together.
        """
        pool: list[Hypothesis] = []
        for group in _groups(lines, name):
            pool += group
            if at_once or len(pool) >= _POOL:
                yield self._table(pool)
                pool = []
        if pool:
            yield self._table(pool)

    def _table(self, pool: list[Hypothesis]) -> Table:
        table: Table = {name: [] for name in COLUMNS}
        for _, group in groupby(self._rank(pool), key=lambda found: found.hypothesis.utterance):
            ordered = sorted(group, key=attrgetter("combined"), reverse=True)
            for found in ordered[:1] if self._rule.best else ordered:
                hypothesis = found.hypothesis
                row = (
                    hypothesis.utterance, found.combined, hypothesis.score, found.log_prob,
                    found.words, found.unknown, hypothesis.text,
                )  # fmt: skip
                for name, value in zip(COLUMNS, row, strict=True):
                    table[name].append(value)
        return table

    def _rank(self, pool: list[Hypothesis]) -> list[Ranked]:
        sentences = [encoded(self._tokenizer, one.text + b"\n") for one in pool]
        measured = read_sentences(
            self._model, [tokens.ids for tokens in sentences], begin=self._tokenizer.line_end,
            predict=self._predict, window=self._window,
        )  # fmt: skip
        ranked = []
        for hypothesis, tokens, measures in zip(pool, sentences, measured, strict=True):
            self.totals.see(tokens)
            self.totals.add(measures)
            log_prob, words = -float(measures.nats.sum()), len(hypothesis.text.split())
            given = -hypothesis.score if self._rule.costs else hypothesis.score
            combined = given + self._rule.weight * log_prob + self._rule.word_bonus * words
            unknown = int(tokens.unknown.sum())
            ranked.append(Ranked(hypothesis, combined, log_prob, words, unknown))
        return ranked


def _groups(lines: Iterable[list[Part]], name: str) -> Iterator[list[Hypothesis]]:
    """The hypotheses of one id after the other."""
    seen: set[bytes] = set()
    group: list[Hypothesis] = []
    for number, parts in enumerate(lines, start=1):
        line = b"".join([part.text for part in parts])
        if not line.strip():
            continue
        one = _parsed(line, f"{name}, line {number}")
        if group and one.utterance != group[0].utterance:
            yield group
            group = []
        if not group and one.utterance in seen:
            shown = one.utterance.decode("utf-8", "backslashreplace")
            raise DataError(
                f"{name}, line {number}: id {shown} has been before, with other ids in between",
                "Sort the lines by id: hypotheses of one id have to stand together.",
            )
        seen.add(one.utterance)
        group.append(one)
    if group:
        yield group


def _parsed(line: bytes, place: str) -> Hypothesis:
    fields = line.split(None, 2)
    remedy = "A line is `id score text`: white space between the three, a number in the middle."
    if len(fields) < 2:
        raise DataError(f"{place} has no score", remedy)
    utterance, given, text = fields[0], fields[1], fields[2] if len(fields) > 2 else b""
    try:
        score = float(given)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        shown = given.decode("utf-8", "backslashreplace")
        raise DataError(f"{place}: the score {shown!r} is no finite number", remedy)
    return Hypothesis(utterance, score, text.rstrip(b"\r\n"))
