"""Random files: noise, text of every script, damaged text, and what programs stumble over."""

import random
from collections.abc import Callable

SCRIPTS = (
    (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x391, 0x500), (0x5D0, 0x700), (0x900, 0xE00),
    (0x2000, 0x2070), (0x3040, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFE00, 0xFE10),
    (0x1F300, 0x1F700), (0xE0000, 0xE0080), (0x10FF00, 0x110000),
)  # fmt: skip
SPACES = (b" ", b"  ", b"\t", b"\n", b"\r\n", b"\r", b"\v", b"\f", b"\n\n\n", b" \n ", b"\r\r\n")
BREAKS = ("\u0085", "\u00a0", "\u1680", "\u2028", "\u2029", "\u3000", "\u200b", "\u200d", "\ufeff")
NOT_UTF8 = (
    b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xc0\x80", b"\xc1\xbf",
    b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\x80",
    b"\xbf" * 7, b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\xff",
)  # fmt: skip
RESERVED = (
    b"<eos>",
    b"<unk>",
    b"<unk>x",
    b" <eos> ",
    b"\n<eos>\n",
    b"</s>",
    b"[CLS]",
    b"<|endoftext|>",
)


def text(draws: random.Random) -> bytes:
    """Up to some thousand bytes, of one kind or of several."""
    parts = [draws.choice(KINDS)(draws) for _ in range(draws.choice((1, 1, 1, 2, 3, 6)))]
    whole = b"".join(parts)
    return damaged(whole, draws) if draws.random() < 0.25 else whole


def _noise(draws: random.Random) -> bytes:
    return draws.randbytes(draws.choice((1, 2, 3, 30, 300, 3000)))


def _few_bytes(draws: random.Random) -> bytes:
    alphabet = bytes(draws.choices(range(256), k=draws.randint(1, 4)))
    return bytes(draws.choices(alphabet, k=draws.randint(1, 500)))


def _words(draws: random.Random) -> bytes:
    """Words of some scripts, apart by all that is whitespace somewhere."""
    words = [_word(draws) for _ in range(draws.choice((1, 5, 60)))]
    return b"".join(draws.choice(words) + _gap(draws) for _ in range(draws.choice((1, 9, 200))))


def _word(draws: random.Random) -> bytes:
    first, last = draws.choice(SCRIPTS)
    letters = [chr(draws.randrange(first, last)) for _ in range(draws.randint(1, 9))]
    return "".join(letters).encode()


def _gap(draws: random.Random) -> bytes:
    if draws.random() < 0.7:
        return b" "
    return draws.choice(SPACES) if draws.random() < 0.7 else draws.choice(BREAKS).encode()


def _characters(draws: random.Random) -> bytes:
    points = (draws.randrange(0x110000) for _ in range(draws.randint(1, 400)))
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000).encode()


def _controls(draws: random.Random) -> bytes:
    return bytes(draws.choices(range(0x20), k=draws.randint(1, 200)))


def _combining(draws: random.Random) -> bytes:
    marks = "".join(chr(draws.randrange(0x300, 0x370)) for _ in range(draws.randint(1, 300)))
    return ("e" + marks).encode()


def _long_word(draws: random.Random) -> bytes:
    return draws.choice((b"a", b"ab", b"a1", "\u00e9".encode(), b"!?", b"\0")) * draws.randint(
        99, 4000
    )


def _many_words(draws: random.Random) -> bytes:
    return b" ".join(b"%x" % draws.getrandbits(48) for _ in range(draws.randint(1, 400)))


def _blank(draws: random.Random) -> bytes:
    return b"".join(draws.choices(SPACES, k=draws.randint(1, 50)))


def _reserved(draws: random.Random) -> bytes:
    return b"".join(draws.choice(RESERVED) + _gap(draws) for _ in range(draws.randint(1, 9)))


def _not_utf8(draws: random.Random) -> bytes:
    return draws.choice(NOT_UTF8)


def damaged(content: bytes, draws: random.Random) -> bytes:
    """A byte changed, left out, put in or the end cut off, some times."""
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 2, 5))):
        at = draws.randrange(len(changed) + 1)
        match draws.randrange(4):
            case 0:
                changed[at : at + 1] = draws.randbytes(1)
            case 1:
                del changed[at : at + draws.choice((1, 1, 3))]
            case 2:
                changed[at:at] = draws.choice(NOT_UTF8)
            case _:
                del changed[max(at, 1) :]
    return bytes(changed)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    _noise, _few_bytes, _words, _words, _characters, _controls, _combining, _long_word,
    _many_words, _blank, _reserved, _not_utf8,
)  # fmt: skip
