"""Tokenizers by name: their configurations, and `tokenizer.json`."""

import json
from collections.abc import Callable
from pathlib import Path

from lm.data.tokenizers.base import FORMAT, Tokenizer, TokenizerConfig
from lm.data.tokenizers.bpe import BpeConfig, bpe_from_json
from lm.data.tokenizers.byte import ByteConfig, byte_from_json
from lm.data.tokenizers.char import CharConfig, char_from_json
from lm.data.tokenizers.word import WordConfig, word_from_json
from lm.errors import CheckpointError
from lm.runtime.files import storage_errors, write_atomically

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
_LARGEST_FILE = 256 * 2**20


def tokenizer_from_json(data: object) -> Tokenizer:
    """The inverse of `Tokenizer.to_json`; kinds are looked up in `LOADERS` and nowhere else.

    Raises:
        CheckpointError: the data is damaged, hostile or of a newer format.
    """
    try:
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not a tokenizer of format {FORMAT}")
        loader = LOADERS.get(str(data.get("kind")))
        if loader is None:
            raise ValueError(f"unknown kind {data.get('kind')!r}, known: {', '.join(LOADERS)}")
        return loader(data)
    except ValueError as error:
        raise CheckpointError(
            f"the tokenizer cannot be read: {error}", "Use another checkpoint of the run."
        ) from error


def load_tokenizer(path: Path) -> Tokenizer:
    """Read `tokenizer.json`.

    Raises:
        CheckpointError: the file is missing, damaged, hostile or of a newer format.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it is larger than {_LARGEST_FILE} bytes")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", "Use another checkpoint of the run."
        ) from error
    return tokenizer_from_json(data)


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json`, whole or not at all.

    Raises:
        StorageError: disk full or read-only.
    """
    with storage_errors(f"write {path}"):
        write_atomically(path, json.dumps(tokenizer.to_json()).encode())
