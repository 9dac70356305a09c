"""Tokenizers: byte, char, word and bpe."""

from lm.data.tokenizers.base import Tokenizer, TokenizerConfig
from lm.data.tokenizers.bpe import BpeConfig, BpeTokenizer
from lm.data.tokenizers.byte import ByteConfig, ByteTokenizer
from lm.data.tokenizers.char import CharConfig, CharTokenizer
from lm.data.tokenizers.registry import (
    LOADERS,
    TOKENIZERS,
    load_tokenizer,
    save_tokenizer,
    tokenizer_from_json,
)
from lm.data.tokenizers.word import WordConfig, WordTokenizer

__all__ = [
    "LOADERS",
    "TOKENIZERS",
    "BpeConfig",
    "BpeTokenizer",
    "ByteConfig",
    "ByteTokenizer",
    "CharConfig",
    "CharTokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "WordConfig",
    "WordTokenizer",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_from_json",
]
