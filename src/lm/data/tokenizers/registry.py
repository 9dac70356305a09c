"""Tokenizers by name: their configurations, and `tokenizer.json`."""

import json
from collections.abc import Callable
from pathlib import Path

from lm.data.tokenizers.base import FORMAT, Tokenizer, TokenizerConfig
from lm.data.tokenizers.bpe import BpeConfig, bpe_from_json
from lm.data.tokenizers.byte import ByteConfig, byte_from_json
from lm.data.tokenizers.char import CharConfig, char_from_json
from lm.data.tokenizers.word import WordConfig, word_from_json
from lm.runtime.files import storage_errors, write_atomically
from lm.runtime.untrusted import contained, read_json_object, shown

TOKENIZERS: dict[str, type[TokenizerConfig]] = {
    "byte": ByteConfig,
    "char": CharConfig,
    "word": WordConfig,
    "bpe": BpeConfig,
}
LOADERS: dict[str, Callable[[dict[str, object]], Tokenizer]] = {
    "byte": byte_from_json,
    "char": char_from_json,
    "word": word_from_json,
    "bpe": bpe_from_json,
}
_LARGEST_FILE = 128 << 20


def tokenizer_from_json(data: object) -> Tokenizer:
    """The inverse of `Tokenizer.to_json`; kinds are looked up in `LOADERS` and nowhere else.

    Raises:
        CheckpointError: the data is damaged, hostile or of a newer format.
    """
    with contained("the tokenizer"):
        found = data.get("format") if isinstance(data, dict) else None
        if not isinstance(data, dict) or type(found) is not int or found != FORMAT:
            raise ValueError(f"it has format {shown(found)}, this lm reads {FORMAT}")
        loader = LOADERS.get(str(data.get("kind")))
        if loader is None:
            raise ValueError(f"unknown kind {shown(data.get('kind'))}, known: {', '.join(LOADERS)}")
        return loader(data)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read `tokenizer.json`.

    Raises:
        CheckpointError: the file is missing, damaged, hostile or of a newer format.
    """
    return tokenizer_from_json(read_json_object(path, _LARGEST_FILE))


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json`, whole or not at all.

    Raises:
        StorageError: disk full or read-only.
    """
    with storage_errors(f"write {path}"):
        write_atomically(path, json.dumps(tokenizer.to_json()).encode())
