"""Text that a user and a model write in turn, with one recurrent state for all of it."""

import codecs
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.data.tokenizers import Tokenizer
from lm.models import LanguageModel
from lm.models.stepper import Advancing, stepper_after
from lm.runtime.randomness import generator
from lm.sampling import SamplingConfig, draw


@dataclass(slots=True)
class Settings:
    """How the model goes on; may change from one turn to the next.

    Attributes:
        num_tokens: of a continuation, at most.
        seed: of the draws, which go on from one continuation to the next.
        stop: a continuation ends before this text; the model has read it all the same.
        surprisal: measure the user's words.
    """

    sampling: SamplingConfig
    num_tokens: int
    seed: int
    stop: str | None = None
    surprisal: bool = False


@dataclass(frozen=True, slots=True)
class Surprisal:
    """A word of the user's.

    Attributes:
        bits: −log₂ of its probability after all that was said before it; None where it holds the
            very first token, which nothing precedes.
    """

    word: str
    bits: float | None


class Conversation:
    """What was said so far, as a state; the tokens themselves are not kept."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, settings: Settings) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.reset()

    def reset(self) -> None:
        """Forget all that was said, and begin the seed's draws anew."""
        self._stepper: Advancing | None = None
        self._text = TextStream(self.tokenizer)
        self.reseed(self.settings.seed)

    def reseed(self, seed: int) -> None:
        """Draw from this seed on."""
        self.settings.seed = seed
        self._draws = generator(seed, 0, "generate", self.model.device)

    def unknown_in(self, text: bytes) -> int:
        """How many tokens of a text stand for something outside the vocabulary."""
        return self.tokenizer.count_unknown(text, self.tokenizer.encode(text))

    def hear(self, text: bytes) -> list[Surprisal]:
        """Read the user's text, which goes on from what was said; its words, where asked for.

        Raises:
            UnicodeDecodeError: the tokenizer needs UTF-8 and the text is not.
        """
        ids = self.tokenizer.encode(text).tolist()
        bits: list[float | None] = []
        rest = ids
        if self._stepper is None and ids:
            # At once, unless there are words to measure.
            first = ids[:1] if self.settings.surprisal else ids
            self._begin(first)
            rest, bits = ids[len(first) :], [None]
        for token in rest:
            assert self._stepper is not None
            if self.settings.surprisal:
                log_prob = self._stepper.logits()[0].log_softmax(-1)
                bits.append(-log_prob[token].item() / math.log(2))
            self._stepper.read(self._token(token))
        self._text.skip(ids)
        return by_word(self.tokenizer, ids, bits) if self.settings.surprisal else []

    def reply(self) -> Iterator[str]:
        """The model's continuation, in pieces of whole characters, as they are drawn.

        Whoever leaves it between two pieces leaves a state that has read what was drawn.
        """
        settings = self.settings
        yield from until(self._pieces(settings.num_tokens), settings.stop)

    def _pieces(self, num_tokens: int) -> Iterator[str]:
        if self._stepper is None:  # as `lm generate` without a prompt
            self._begin([self.tokenizer.line_end])
            self._text.skip([self.tokenizer.line_end])
        assert self._stepper is not None
        for _ in range(num_tokens):
            token = draw(self._stepper.logits(), self.settings.sampling, self._draws)
            self._stepper.read(token)
            yield self._text.add(int(token))

    def _begin(self, ids: list[int]) -> None:
        self._stepper = stepper_after(self.model, torch.tensor(ids, device=self.model.device), 1)

    def _token(self, token: int) -> Tensor:
        return torch.tensor([token], device=self.model.device)


class TextStream:
    """The text of tokens that come one by one: what each of them adds."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Between words a space is due or not by the token before: that one is enough.
        self._before: list[int] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def skip(self, ids: list[int]) -> None:
        """Tokens whose text somebody else shows; bytes of a half character before them are lost."""
        if ids:
            self._before = ids[-1:]
            self._utf8.reset()

    def add(self, token: int) -> str:
        """The characters that this token completes."""
        before = self._tokenizer.decode(self._before)
        both = self._tokenizer.decode([*self._before, token])
        self._before = [token]
        return self._utf8.decode(both[len(before) :])


def until(pieces: Iterable[str], stop: str | None) -> Iterator[str]:
    """The pieces up to `stop`; what may be its beginning is held back until it turns out."""
    held = ""
    for piece in pieces:
        held += piece
        if stop and stop in held:
            yield held.split(stop)[0]
            return
        begun = [k for k in range(1, len(stop or "")) if held.endswith((stop or "")[:k])]
        free = len(held) - max(begun, default=0)
        yield held[:free]
        held = held[free:]
    yield held


def by_word(tokenizer: Tokenizer, ids: list[int], bits: list[float | None]) -> list[Surprisal]:
    """Tokens joined to words, each with the whitespace before it; their bits add up."""
    words: list[Surprisal] = []
    raw, total = b"", 0.0
    known = True
    for token, cost in zip(ids, bits, strict=True):
        piece = tokenizer.decode([token])
        # Each word of a word tokenizer is one; elsewhere a space begins the next.
        new = tokenizer.rewrites_whitespace or piece[:1].isspace()
        if raw.strip() and new:
            words.append(_word(raw, total if known else None))
            raw, total, known = b"", 0.0, True
        raw += piece
        known = known and cost is not None
        total += cost or 0.0
    return [*words, _word(raw, total if known else None)] if raw else words


def _word(raw: bytes, bits: float | None) -> Surprisal:
    text = raw.decode("utf-8", "replace")
    return Surprisal(text.strip() or text, bits)
