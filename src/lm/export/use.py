"""Score and continue text with an exported language model: numpy and onnxruntime, nothing else.

    python use.py score "the text to score"
    python use.py generate "the text to go on from" --tokens 100 --temperature 0.8 --seed 1

It reads what lies beside it: model.onnx, step.onnx, weights.bin, config.json, initial_state.json
and tokenizer.json. A byte-pair tokenizer needs the package `tokenizers` as well.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

CHUNK = 256
"""Tokens that are scored at once: memory holds so many distributions over the vocabulary."""

Floats = NDArray[np.float32]
State = dict[str, Floats]


class Bytes:
    """Each byte of the text in UTF-8 is its own id."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogateescape"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class Characters:
    """Id k is the k-th character; 0 is unknown."""

    def __init__(self, characters: str) -> None:
        self.table = "\N{REPLACEMENT CHARACTER}" + characters
        self.ids = {character: k for k, character in enumerate(characters, start=1)}

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(character, 0) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.table[i] for i in ids)


class Words:
    """Words between ASCII whitespace, and `<eos>` for each line end."""

    def __init__(self, words: list[str], unknown: str) -> None:
        self.words = words
        self.ids = {word: k for k, word in enumerate(words)}
        self.unknown = self.ids[unknown]

    def encode(self, text: str) -> list[int]:
        # As bytes, since str.split also divides at the whitespace of other scripts.
        raw = text.encode("utf-8", "surrogateescape").replace(b"\n", b" <eos> ").split()
        return [self.ids.get(w.decode("utf-8", "surrogateescape"), self.unknown) for w in raw]

    def decode(self, ids: Sequence[int]) -> str:
        words = [self.words[i] for i in ids]
        text = " ".join("\n" if word == "<eos>" else word for word in words)
        return text.replace(" \n", "\n").replace("\n ", "\n")


class BytePairs:
    """Byte-pair encoding by the library `tokenizers`."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Library

        self.library = Library.from_file(str(path))

    def encode(self, text: str) -> list[int]:
        return list(self.library.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.library.decode(list(ids), skip_special_tokens=False))


Tokenizer = Bytes | Characters | Words | BytePairs


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_tokenizer(path: Path, kind: str) -> Tokenizer:
    """The tokenizer that the model was trained with."""
    if kind == "bpe":
        return BytePairs(path)
    if kind == "byte":
        return Bytes()
    content = read(path)
    if kind == "char":
        return Characters(content["characters"])
    return Words(content["words"], content["unknown"])


class Model:
    """The graphs of a folder, with their tokenizer.

    Attributes:
        begin: the token to go on from where there is no text: a line end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read(folder / "config.json")
        self.begin = int(self.config["begin_token"])
        self.tokenizer = read_tokenizer(folder / "tokenizer.json", self.config["tokenizer"])

    def session(self, name: str) -> onnxruntime.InferenceSession:
        """`model`: tokens [T, B] to log-probabilities [T, B, V]; `step`: [B] to [B, V]."""
        return onnxruntime.InferenceSession(
            self.folder / f"{name}.onnx", providers=["CPUExecutionProvider"]
        )

    def initial_state(self) -> State:
        """Of one stream, before its first token."""
        start = read(self.folder / "initial_state.json")
        return {name: np.array([row], np.float32) for name, row in start.items()}

    def score(self, text: str) -> tuple[list[int], NDArray[np.float64]]:
        """The tokens after the first, which is context, and −log p of each in nats."""
        ids, state, nats = self.tokenizer.encode(text), self.initial_state(), []
        if len(ids) < 2:
            raise SystemExit(f"use.py: scoring needs at least 2 tokens, the text has {len(ids)}")
        window = self.session("model")
        for begin in range(0, len(ids) - 1, CHUNK):
            targets = ids[begin + 1 : begin + 1 + CHUNK]
            log_prob, state = advance(window, ids[begin : begin + len(targets)], state)
            nats += [-float(row[target]) for row, target in zip(log_prob, targets, strict=True)]
        return ids[1:], np.array(nats)

    def generate(self, prompt: str, temperature: float, seed: int) -> Iterator[int]:
        """Tokens that continue the prompt, endlessly; temperature 0 takes the most probable."""
        draws, step, state = np.random.default_rng(seed), self.session("step"), self.initial_state()
        for token in self.tokenizer.encode(prompt) or [self.begin]:
            log_prob, state = advance(step, token, state)
        while True:
            token = draw(log_prob, temperature, draws)
            yield token
            log_prob, state = advance(step, token, state)


def advance(
    session: onnxruntime.InferenceSession, tokens: int | list[int], state: State
) -> tuple[Floats, State]:
    """One stream a step or a window further: log-probabilities of the next token, and its state."""
    feed = {"tokens": np.array(tokens, np.int64)[..., None], **state}
    log_prob, *after = session.run(None, feed)
    return log_prob[..., 0, :], dict(zip(state, after, strict=True))


def draw(log_prob: Floats, temperature: float, draws: np.random.Generator) -> int:
    """A token from the distribution that a temperature makes of one."""
    if temperature == 0:
        return int(log_prob.argmax())
    weights = np.exp((log_prob.astype(np.float64) - log_prob.max()) / temperature)
    return int(draws.choice(len(weights), p=weights / weights.sum()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Score and continue text with this model.")
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="perplexity of a text")
    score.add_argument("text")
    generate = commands.add_parser("generate", help="go on from a text")
    generate.add_argument("prompt", nargs="?", default="")
    generate.add_argument("--tokens", type=int, default=100)
    generate.add_argument("--temperature", type=float, default=1.0)
    generate.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    model = Model(Path(__file__).resolve().parent)
    if given.command == "score":
        ids, nats = model.score(given.text)
        mean = nats.mean()
        sys.stdout.write(
            f"tokens {len(ids)} · nats {nats.sum():.6f} · bits {nats.sum() / math.log(2):.6f}"
            f" · perplexity {math.exp(mean):.6f}\n"
        )
    else:
        prompt = model.tokenizer.encode(given.prompt) or [model.begin]
        stream = model.generate(given.prompt, given.temperature, given.seed)
        drawn = [token for token, _ in zip(stream, range(given.tokens), strict=False)]
        before = model.tokenizer.decode(prompt)
        sys.stdout.write(
            given.prompt + model.tokenizer.decode(prompt + drawn)[len(before) :] + "\n"
        )


if __name__ == "__main__":
    main()
