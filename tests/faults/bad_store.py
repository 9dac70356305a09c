"""Damage to prepared tokens in the cache, of which some the header agrees with."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_text_commands import GOOD, train, write

from lm.data.corpus import Unit
from lm.data.prepare import prepare
from lm.data.sources import TextConfig
from lm.data.tokenizers import WordConfig
from lm.runtime.files import default_cache

Damage = Callable[[Path], object]
_SHARD = "shard-00000.bin"


def damaged(damage: Damage) -> list[str]:
    """Train on a text, damage its tokens, and give the command to train on it again."""
    write("stored.txt", GOOD)
    corpus = TextConfig(path="stored.txt").build(default_cache())
    stores = prepare(corpus, WordConfig(), Unit.stream, default_cache()).stores
    damage(stores["train"].path)
    return train("stored.txt", "tokenizer=word")


def _header(**values: Any) -> Damage:
    def change(store: Path) -> None:
        path = store / "header.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _tokens(change: Callable[[bytearray], object], *, agreeing: bool = False) -> Damage:
    def act(store: Path) -> None:
        content = bytearray((store / _SHARD).read_bytes())
        change(content)
        (store / _SHARD).write_bytes(content)
        if agreeing:
            digest = hashlib.sha256(content).hexdigest()
            shard = {"name": _SHARD, "items": len(content), "sha256": digest}
            _header(shards=[shard], num_tokens=len(content))(store)

    return act


def _high(content: bytearray) -> None:
    content[5] = 200


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a changed byte": (
        _tokens(lambda tokens: tokens.__setitem__(5, tokens[5] ^ 1)),
        "hash differs",
    ),
    "a cut": (_tokens(lambda tokens: tokens.__delitem__(slice(500, None))), "500 bytes instead"),
    "a byte more": (_tokens(lambda tokens: tokens.append(1)), "bytes instead of"),
    "an id beyond the vocabulary": (_tokens(_high, agreeing=True), "has id 200, the vocabulary"),
    "a larger maximum": (_header(max_id=99), "is damaged"),
    "another vocabulary": (_header(vocab_size=100), "of another tokenizer"),
    "another tokenizer": (_header(tokenizer="0" * 64), "of another tokenizer"),
    "another count": (_header(num_tokens=7), "do not add up to 7 tokens"),
    "another type": (_header(dtype="<u4"), "is damaged"),
    "no header": (lambda store: (store / "header.json").unlink(), "No such file"),
    "an empty header": (lambda store: (store / "header.json").write_bytes(b""), "is damaged"),
    "no tokens": (lambda store: (store / _SHARD).unlink(), "No such file"),
}
"""How, and what is said of it."""
