"""Byte-pair encoding by words that were met before: what makes it fast.

The library's division of a text into parts, by a regular expression, takes most of its time. A
text is mostly words that were met before; their tokens are looked up.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Library

# Of words, and of the bytes of one: some 50 MB in all.
_REMEMBERED, _LONGEST_REMEMBERED = 1 << 18, 64
_CODES = np.arange(256)
_ASCII, _VISIBLE, _SPACE = _CODES < 0x80, np.isin(_CODES, np.arange(0x21, 0x7F)), _CODES == 0x20
_LETTER = _ASCII & [chr(code).isalpha() for code in range(256)]
_DIGIT = _ASCII & [chr(code).isdigit() for code in range(256)]


class RememberedWords:
    """Encodes texts as the library does, the words of a text by themselves."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._remembered: dict[bytes, bytes] = {}

    def encode_all(self, texts: Sequence[bytes]) -> list[NDArray[np.int64]]:
        """The ids of each text."""
        divided = [_words(text) for text in texts]
        known = self._known(set().union(*divided))
        joined = [b"".join(map(known.__getitem__, words)) for words in divided]
        return [np.frombuffer(raw, "<u4").astype(np.int64) for raw in joined]

    def _known(self, words: set[bytes]) -> dict[bytes, bytes]:
        """At least these words, with their ids as little-endian uint32."""
        if len(self._remembered) > _REMEMBERED:
            self._remembered = {}
        known = self._remembered
        new = [word for word in words if word not in known]
        decoded = [word.decode() for word in new]
        encodings = self._library.encode_batch_fast(decoded, add_special_tokens=False)
        ids = [np.array(encoding.ids, "<u4").tobytes() for encoding in encodings]
        found = dict(zip(new, ids, strict=True))
        if any(len(word) > _LONGEST_REMEMBERED for word in new):
            return known | found
        known |= found
        return known


def _words(text: bytes) -> list[bytes]:
    """The text in parts that are encoded as by themselves, most of them a word.

    None of the library's parts goes on, in ASCII, from a letter to what is none, from a digit to
    what is none, or from a visible character to a space; and none looks across.
    """
    codes = np.frombuffer(text, np.uint8)
    before, after = codes[:-1], codes[1:]
    ends = _LETTER[before] & (_ASCII & ~_LETTER)[after]
    ends |= _DIGIT[before] & (_ASCII & ~_DIGIT)[after]
    ends |= _VISIBLE[before] & _SPACE[after]
    places = (np.flatnonzero(ends) + 1).tolist()
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
