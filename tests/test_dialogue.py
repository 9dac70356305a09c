"""`lm generate` as a dialogue: one state for all that was said, whole characters, its commands."""

import contextlib
import io
import math
import os
import pty
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from console import error
from hypothesis import given
from hypothesis import strategies as st

import lm.commands.generate as command
from lm.cli import main
from lm.commands.conversation import Conversation, Settings, TextStream, until
from lm.commands.prompt_loop import PromptLoop, interrupts
from lm.data.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, WordTokenizer
from lm.loading import Loaded
from lm.models import CELLS, RecurrentModel
from lm.runtime.randomness import generator
from lm.sampling import SamplingConfig, generate

WORDS = WordTokenizer([b"<eos>", b"a", b"b", b"cat", b"<unk>", "Bär".encode()], b"<unk>", 1)
BYTES = ByteTokenizer()


def model_of(vocab_size: int, cell: str = "lstm") -> RecurrentModel:
    model = CELLS[cell](embedding_size=8, hidden_size=12, num_layers=2).build(vocab_size, seed=3)
    for parameter in model.requires_grad_(False).parameters():
        parameter.mul_(4)  # sharp enough that the state matters
    return model


def conversation_of(tokenizer: Tokenizer, cell: str = "lstm", **fields: object) -> Conversation:
    given = {"sampling": SamplingConfig(), "num_tokens": 12, "seed": 5, **fields}
    model = model_of(tokenizer.vocab_size, cell)
    return Conversation(model, tokenizer, Settings(**given))  # type: ignore[arg-type]


class Console:
    """Lines that a user types, and what is shown: before the first, and after each of them."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.shown = list(lines), [""]

    def ask(self) -> str | None:
        self.shown.append("")
        return self.lines.pop(0) if self.lines else None

    def say(self, text: str) -> None:
        self.shown[-1] += text

    @property
    def answers(self) -> list[str]:
        """What was shown after each line."""
        return self.shown[1:-1]


def talk(conversation: Conversation, *lines: str) -> list[str]:
    console = Console(*lines)
    PromptLoop(conversation, console.ask, console.say, interrupts).run(None)
    return console.answers


@pytest.mark.parametrize("prompt", ["a cat", ""])
def test_the_first_turn_is_what_the_prompt_gives(prompt: str) -> None:
    conversation = conversation_of(WORDS)
    (wanted,) = generate(
        conversation.model, WORDS, prompt.encode(), num_tokens=12, draws=generator(5, 0, "generate")
    )
    assert talk(conversation, prompt)[0] == f"{wanted.decode()}\n"


@pytest.mark.parametrize("cell", ["lstm", "slstm"])
def test_a_turn_goes_on_from_all_that_was_said(cell: str) -> None:
    """Greedy, against a model that reads everything anew for each token."""
    conversation = conversation_of(BYTES, cell, sampling=SamplingConfig(temperature=0))
    ids: list[int] = []
    for text in (b"one ", b"", b"two"):
        conversation.hear(text)
        ids += text
        for piece in conversation._pieces(6):
            log_prob, _ = conversation.model.log_prob(torch.tensor(ids)[:, None])
            wanted = int(log_prob[-1, 0].argmax())
            ids.append(wanted)
            assert piece in ("", *bytes(ids[-4:]).decode("utf-8", "replace"))
        after = conversation._stepper
        assert after is not None
        log_prob, _ = conversation.model.log_prob(torch.tensor(ids)[:, None])
        found = after.logits()[0].log_softmax(-1)
        torch.testing.assert_close(found, log_prob[-1, 0], rtol=0, atol=1e-4)


def test_reset_forgets_and_draws_the_same_again() -> None:
    first, _, again, other = talk(conversation_of(WORDS), "a", "/reset", "a", "a")
    assert first == again != other


def test_seed_draws_from_there_on() -> None:
    answers = talk(conversation_of(WORDS), "a", "/seed 5", "/reset", "a", "/seed 6", "/reset", "a")
    assert answers[0] == answers[3] != answers[6]


CHARS = CharTokenizer("ab \nÄ", 1)


@given(
    tokenizer=st.sampled_from([WORDS, CHARS]),
    prompt=st.lists(st.integers(0, 5), max_size=4),
    ids=st.lists(st.integers(0, 5), max_size=12),
)
def test_pieces_join_to_what_decoding_all_gives(
    tokenizer: Tokenizer, prompt: list[int], ids: list[int]
) -> None:
    stream = TextStream(tokenizer)
    stream.skip(prompt)
    text = "".join(map(stream.add, ids))
    whole, before = tokenizer.decode(prompt + ids), tokenizer.decode(prompt)
    assert text == whole[len(before) :].decode()


def test_half_characters_are_held_back() -> None:
    stream = TextStream(BYTES)
    pieces = [stream.add(byte) for byte in "aé🙂".encode() + b"\xff!"]
    assert pieces == ["a", "", "é", "", "", "", "🙂", "\ufffd", "!"]
    stream.add("é".encode()[0])
    stream.skip([65])  # the user goes on in between
    assert stream.add(66) == "B"


@given(text=st.text("ab", max_size=12), stop=st.text("ab", min_size=1, max_size=3), data=st.data())
def test_a_stop_text_is_never_shown(text: str, stop: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert "".join(until(pieces, stop)) == text.split(stop)[0]
    assert "".join(until(pieces, None)) == text


def test_text_that_cannot_be_the_stop_is_shown_at_once() -> None:
    shown = until(iter(["one", " t", "wo"]), "three")
    assert [next(shown), next(shown)] == ["one", " "]


def test_bits_of_the_users_words_are_those_of_the_model() -> None:
    conversation = conversation_of(WORDS, surprisal=True)
    first = conversation.hear(b"a cat zebra")
    second = conversation.hear("Bär b".encode())
    ids = torch.from_numpy(WORDS.encode("a cat zebra Bär b".encode()))[:, None]
    nats = conversation.model(ids[:-1], ids[1:]).nll[:, 0]
    words = [*first, *second]
    assert [word.word for word in words] == ["a", "cat", "<unk>", "Bär", "b"]
    assert words[0].bits is None
    bits = [word.bits for word in words[1:]]
    assert bits == pytest.approx((nats / math.log(2)).tolist(), abs=1e-4)


def test_bits_of_bytes_add_up_to_words() -> None:
    conversation = conversation_of(BYTES, surprisal=True)
    conversation.hear(b"x")
    words = conversation.hear(b" ab  c")
    ids = torch.tensor(list(b"x ab  c"))[:, None]
    bits = (conversation.model(ids[:-1], ids[1:]).nll[:, 0] / math.log(2)).tolist()
    assert [word.word for word in words] == ["ab", "c"]
    wanted = [sum(bits[:3]), sum(bits[3:])]
    assert [word.bits for word in words] == pytest.approx(wanted, abs=1e-3)


def test_surprisal_is_shown_when_it_is_on() -> None:
    _, shown = talk(conversation_of(WORDS), "/surprisal on", "a cat zebra")
    unknown, bits, *_ = shown.splitlines()
    assert unknown == "(1 of your tokens are unknown to the model)"
    assert bits.startswith("a NA · cat ")
    assert bits.endswith(" a word")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/temperature -1", "temperature must be a finite number >= 0, got -1.0"),
        ("/temperature hot", "a number is needed, got 'hot'"),
        ("/top_p 1.5", "top_p must be a number in (0, 1], got 1.5"),
        ("/top_k 0", "top_k must be >= 1, got 0"),
        ("/tokens", "a whole number is needed, got ''"),
        ("/tokens 0", "tokens must be >= 1, got 0"),
        ("/seed -3", "seed must be >= 0, got -3"),
        ("/surprisal yes", "surprisal must be one of on, off, got 'yes'"),
        ("/tokns 3", "there is no command /tokns; nearest: /tokens"),
    ],
)
def test_a_wrong_command_says_why_and_changes_nothing(line: str, answer: str) -> None:
    before, said, after = talk(conversation_of(WORDS), "/settings", line, "/settings")
    assert said.splitlines()[0] == answer
    assert before == after


def test_commands_set_what_they_say() -> None:
    lines = ["/temperature 0.5", "/top_k 3", "/top_p 0.9", "/tokens 7", "/seed 3", "/surprisal on"]
    answers = talk(conversation_of(WORDS), *lines, "/settings", "/top_k off", "/settings")
    assert answers[6] == (
        "tokens 7 · temperature 0.5 · top_k 3 · top_p 0.9 · seed 3 · surprisal on\n"
    )
    assert "top_k off" in answers[8]


def test_quit_leaves_and_a_doubled_slash_is_text() -> None:
    console = Console("//quit", "/quit", "never read")
    PromptLoop(conversation_of(BYTES), console.ask, console.say, interrupts).run(None)
    assert console.lines == ["never read"]
    assert len(console.shown) == 3


def test_a_given_prompt_is_the_first_text() -> None:
    console = Console()
    PromptLoop(conversation_of(WORDS), console.ask, console.say, interrupts).run("a cat")
    assert console.shown[0].endswith(talk(conversation_of(WORDS), "a cat")[0])


def test_control_characters_do_not_reach_the_terminal() -> None:
    conversation = conversation_of(BYTES, num_tokens=300)
    shown = "".join(talk(conversation, "x"))
    assert "\\x" in shown
    assert all(c.isprintable() or c == "\n" or c == "\t" for c in shown)


def test_ctrl_c_stops_a_continuation_between_two_tokens() -> None:
    conversation = conversation_of(WORDS, num_tokens=10_000)
    console = Console("x", "/tokens 3", "")

    def say(text: str) -> None:
        console.say(text)
        if text != "\n" and len(console.shown) == 2 and len(console.shown[1]) > 100:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    PromptLoop(conversation, console.ask, say, interrupts).run(None)
    stopped, _, after = console.answers
    assert 100 < len(stopped) < 120
    assert 0 < len(after) < 20
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = object.__new__(Loaded)  # as far as a dialogue needs it
    parts = {"model": model_of(WORDS.vocab_size), "tokenizer": WORDS, "path": Path("run")}
    for name, part in parts.items():
        object.__setattr__(found, name, part)
    monkeypatch.setattr(command, "load", lambda *_, **__: found)


def all_of(master: int) -> bytes:
    """What was written to a terminal that is closed: one read may give less."""
    said = b""
    with contextlib.suppress(OSError):  # at the end of it
        while part := os.read(master, 1 << 16):
            said += part
    return said


@pytest.mark.usefixtures("loaded")
def test_on_a_terminal_without_a_prompt_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with (
        os.fdopen(slave, encoding="utf-8", closefd=False) as typed,
        os.fdopen(slave, "w", encoding="utf-8") as shown,
    ):
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(sys, "stdout", shown)
        os.write(master, b"a cat\n/settings\n\x04")  # and Ctrl-D
        assert main(["generate", "run=r", "seed=5", "num_tokens=12"]) == 0
    said = all_of(master).decode().replace("\r\n", "\n")
    os.close(master)
    assert "Ctrl-D leaves.\n> " in said
    assert f"> {talk(conversation_of(WORDS), 'a cat')[0]}> tokens 12 · " in said
    assert said.endswith("> \n")


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["interactive=true", "num_samples=2"], "interactive=true draws one sample"),
        (["interactive=maybe"], "interactive"),
    ],
)
def test_what_is_no_dialogue_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "run=r", *arguments]) == 2
    assert message in error(capsys)


@pytest.mark.usefixtures("loaded")
def test_a_pipe_may_ask_for_the_dialogue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a cat\n/tokens 2\nb"))
    assert main(["generate", "run=r", "interactive=true", "seed=5", "num_tokens=12"]) == 0
    said = capsys.readouterr().out
    assert talk(conversation_of(WORDS), "a cat")[0] in said
    assert "\n> " not in said
