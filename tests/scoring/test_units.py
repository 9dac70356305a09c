"""Tokens belong to the word in which their first byte that is no whitespace lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_problem import KINDS, tokenizer_of

from lm.scoring.tokens import Tokens, encoded
from lm.scoring.units import NEWLINE, Layout, Level

texts = st.text(
    st.sampled_from(" \t\n\r\x0b.,()ab9éÜ\u00a0\u2028\N{CAT FACE}") | st.characters(), max_size=40
)


def tokens_of(*parts: bytes) -> Tokens:
    ends = np.cumsum([len(part) for part in parts])
    spans = np.stack([ends - [len(part) for part in parts], ends], axis=1)
    number = len(parts)
    return Tokens(b"".join(parts), np.arange(number), spans, np.zeros(number, np.bool_))


def words(tokens: Tokens) -> list[tuple[bytes, list[bytes]]]:
    """Each unit's text, and its tokens'."""
    units = Layout(tokens, NEWLINE).units(Level.word)
    ends = [*units.first[1:], len(tokens)]
    pieces = [tokens.text[start:end] for start, end in tokens.spans]
    return [
        (tokens.text[start:end], pieces[first:last])
        for start, end, first, last in zip(units.start, units.end, units.first, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        ([b"the", b" cat", b"s"], [(b"the", [b"the"]), (b"cats", [b" cat", b"s"])]),
        (
            [b"self", b".forward", b"(", b"x", b"):\n    ", b"y"],
            [
                (b"self.forward(x):", [b"self", b".forward", b"(", b"x", b"):\n    "]),
                (b"y", [b"y"]),
            ],
        ),
        (
            [b"a", b" ", b"\t", b"b", b" ", b"\r", b"\n", b" ", b"c"],
            [
                (b"a", [b"a"]),
                (b"b", [b" ", b"\t", b"b"]),
                (b" \r\n", [b" ", b"\r", b"\n"]),
                (b"c", [b" ", b"c"]),
            ],
        ),
        ([b"\n", b"\n"], [(b"\n", [b"\n"]), (b"\n", [b"\n"])]),
        (
            [b"\n\n    ", b"a", b"  "],
            [(b"\n\n    ", [b"\n\n    "]), (b"a", [b"a"]), (b"  ", [b"  "])],
        ),
        (
            [b"\xc3", b"\xa4", b" ", b"\xc3", b"\xa4"],
            [("ä".encode(), [b"\xc3", b"\xa4"]), ("ä".encode(), [b" ", b"\xc3", b"\xa4"])],
        ),
    ],
)
def test_whose_a_token_is(tokens: list[bytes], wanted: list[tuple[bytes, list[bytes]]]) -> None:
    assert words(tokens_of(*tokens)) == wanted


@settings(deadline=None, max_examples=60)
@given(text=texts)
def test_words_and_lines_are_those_of_the_text(text: str) -> None:
    raw = text.encode()
    for kind in KINDS:
        tokens = encoded(tokenizer_of(kind), raw)
        layout = Layout(tokens, NEWLINE)
        found = layout.units(Level.word)
        named = [raw[a:b] for a, b in zip(found.start, found.end, strict=True)]
        assert [unit for unit in named if unit.split()] == raw.split()
        assert found.first.tolist() == sorted(set(found.first.tolist()))  # every token has one
        lines = layout.units(Level.sentence)
        for k, first in enumerate(lines.first):
            assert raw[lines.start[k] : lines.end[k]] == raw.split(b"\n")[layout.line[first]]
