"""The table of bad text: what a user may give `lm` to read, and what it answers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

from bad_store import DAMAGES, damaged
from bad_text_commands import GOOD, evaluate, generate, resume, train, write

from lm.data import prepare as prepare_module
from lm.data.corpus import Document
from lm.data.survey import Survey, survey
from lm.data.tokenizers import counting

KINDS = ("byte", "char", "word", "bpe")
BLIND = Path("/sys/bus/platform/drivers_probe")
"""A file that even root may not read, on Linux."""


@dataclass(frozen=True, slots=True)
class Case:
    """A line of the table.

    Attributes:
        family: what it is like; a few are taken of each.
        command: makes the files in the working directory and gives the command line.
        says: a regular expression for the line of cause, or for all output where the code is 0.
        kept: the file whose bytes must all be in the tokens.
        meanwhile: what happens while the command runs.
    """

    family: str
    name: str
    command: Callable[[], list[str]]
    code: int
    says: str
    kept: str = ""
    meanwhile: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)


def table() -> list[Case]:
    """All cases."""
    return [
        *not_there(), *too_little(), *odd_bytes(), *vocabularies(), *changing(), *damaged_stores(),
        *checkpoints_and_text(), *evaluated(), *prompts(),
    ]  # fmt: skip


def not_there() -> Iterator[Case]:
    """Paths that lead to no text."""

    def a_folder(*names: str) -> None:
        Path("folder").mkdir(exist_ok=True)
        for name in names:
            write(f"folder/{name}", GOOD)

    def case(name: str, path: str, says: str, before: Callable[[], object] = lambda: None) -> Case:
        return Case("path", name, lambda: [before(), train(path)][1], 3, says)

    yield case("missing file", "none.txt", "no such file: none.txt")
    yield case("missing folder", "/none/x.txt", "no such file: /none/x.txt")
    yield case("a file as a folder", "good.txt/x", "no such file: good.txt/x")
    yield case("a glob of nothing", "*.text", r"no such file: \*.text")
    yield case("an empty folder", "folder", r"no file matching '\*' in folder", a_folder)
    yield case("hidden files only", "folder", "no file matching", lambda: a_folder(".x"))
    yield case("a device", "/dev/zero", "neither a file nor a folder: /dev/zero")
    yield case("a name too long", "x" * 300, "cannot read x+: File name too long")
    yield case("a path with NUL", "'a\\0b'", "no such file: ")
    yield case("empty file", "empty.txt", "empty.txt is empty", lambda: write("empty.txt", b""))
    if BLIND.exists():
        yield case("unreadable file", str(BLIND), f"cannot read {BLIND}: Permission denied")
    missing = [f"data.{name}=none.txt" for name in ("valid", "test")]
    for split in missing:
        command = partial(train, None, "data.train=good.txt", split)
        yield Case("path", split, command, 3, f"{split}: no such file")


def too_little() -> Iterator[Case]:
    """Text that does not suffice."""

    def splits(held_out: bytes, *extra: str) -> list[str]:
        write("held.txt", held_out)
        given = ("data.train=good.txt", "data.valid=held.txt", "data.test=good.txt")
        return train(None, *given, *extra)

    def short(size: int, *extra: str) -> list[str]:
        write("short.txt", GOOD[:size])
        given = [f"data.{name}=good.txt" for name in ("valid", "test")]
        return train(None, "data.train=short.txt", *given, "tokenizer=byte", *extra)

    need = r"short.txt\) has 17 tokens, .* need at least 18"
    yield Case("short", "B(T+1)-1 tokens", lambda: short(17), 3, need)
    yield Case("short", "B(T+1) tokens", lambda: short(18), 0, "train 18, valid")
    yield Case("short", "too few bytes to cut", lambda: train(write("s", b"abc")), 3, "s: 3 bytes")
    yield Case("short", "empty validation", lambda: splits(b""), 3, "held.txt is empty")
    for name, text in (("one word", b"the"), ("NUL", b"\0\0"), ("one line end", b"\n")):
        said = r"valid split of text \(held.txt\) has 1 tokens, evaluation needs at least 2"
        yield Case("short", f"{name} held out", partial(splits, text, "tokenizer=word"), 3, said)
    blank = r"valid split of text \(held.txt\) has no tokens: all of it is whitespace"
    yield Case("short", "blank", lambda: splits(b" \t ", "tokenizer=word"), 3, blank)


ODD = {
    "invalid UTF-8": (b"caf\xe9 au\n", "invalid UTF-8 at byte offset 4503"),
    "a surrogate": (b"\xed\xa0\x80\n", "invalid UTF-8 at byte offset 4500"),
    "an overlong slash": (b"\xc0\xaf\n", "invalid UTF-8 at byte offset 4500"),
    "beyond Unicode": (b"\xf4\x90\x80\x80\n", "invalid UTF-8 at byte offset 4500"),
    "a cut character": (b"\xe2\x82", "invalid UTF-8 at byte offset 4500"),
    "NUL": (b"a\0b\0\n", ""),
    "a byte order mark": (b"\xef\xbb\xbfthe\n", ""),
    "CRLF": (b"a\r\nb\r\n\rc\n", ""),
    "U+2028 and U+0085": ("a\u2028b\u0085c\x1cd\n".encode(), ""),
    "combining marks": ("e\u0301 \u0300\u0301\u200d\n".encode(), ""),
    "outside the BMP": ("\U0001f600\U0010ffff\n".encode(), ""),
}


def odd_bytes() -> Iterator[Case]:
    """Bytes that other programs drop, rewrite or stumble over."""

    def at_the_end(odd: bytes, kind: str) -> list[str]:  # where the offset is no split's either
        return train(write("odd.txt", GOOD + odd), f"tokenizer={kind}")

    for kind in KINDS:
        for name, (odd, complaint) in ODD.items():
            refused = complaint if kind in ("char", "bpe") else ""
            code, kept = (3, "") if refused else (0, "odd.txt")
            said = f"odd.txt: {refused}" if refused else "done: 2 steps done"
            command = partial(at_the_end, odd, kind)
            yield Case(f"{kind} text", f"{name} by {kind}", command, code, said, kept)


def vocabularies() -> Iterator[Case]:
    """Words that are too many, too long or badly listed."""

    def listed(content: bytes) -> list[str]:
        return train("good.txt", "tokenizer=word", f"tokenizer.vocabulary={write('v', content)}")

    def among_good(name: str) -> list[str]:
        given = ("data.valid=good.txt", "data.test=good.txt", "tokenizer=word")
        return train(None, f"data.train={name}", *given)

    many = b"".join(b"w%d\n" % k for k in range(70_000))
    yield Case(
        "words", "70,000 words", lambda: among_good(write("w", many)), 0, "vocabulary 70,002", "w",
    )  # fmt: skip
    long = GOOD + b"x" * (9 << 17) + b" y\n"
    yield Case(
        "words", "a word of a megabyte", lambda: among_good(write("w", long)), 3,
        "w: a word longer than 1048576 bytes at byte offset 4500",
    )  # fmt: skip
    yield Case(
        "words", "more words than a vocabulary has",
        lambda: among_good(write("w", many[:-9])), 3, "more than 999 distinct words",
        meanwhile=lambda: patch.object(counting, "LARGEST_VOCABULARY", 999),
    )  # fmt: skip
    yield Case("words", "empty list", lambda: listed(b"\n \n"), 3, "v has no words")
    yield Case("words", "listed twice", lambda: listed(b"a\nb\na\n"), 3, "v: entry 3, 'a', is list")
    yield Case("words", "two on a line", lambda: listed(b"a b\n"), 3, "v: entry 1, 'a b', is not")
    missing = partial(train, "good.txt", "tokenizer=word", "tokenizer.vocabulary=none")
    yield Case("words", "missing list", missing, 3, "vocabulary none: No such file")


def changing() -> Iterator[Case]:
    """A file that changes after it was looked at."""

    def after(change: Callable[[Path], object]) -> AbstractContextManager[object]:
        def surveyed(documents: tuple[Document, ...], memory: Path) -> Survey:
            found = survey(documents, memory)
            change(documents[0].path)
            return found

        return patch.object(prepare_module, "survey", surveyed)

    changes: dict[str, tuple[Callable[[Path], object], str]] = {
        "rewritten": (lambda path: path.write_bytes(GOOD.upper()), "changed while they were read"),
        "cut off": (lambda path: path.write_bytes(GOOD[:2000]), "changed while they were read"),
        "emptied": (lambda path: path.write_bytes(b""), "changed while they were read"),
        "deleted": (lambda path: path.unlink(missing_ok=True), "cannot read c: No such file"),
    }
    command: Callable[[], list[str]] = lambda: train(write("c", GOOD), "tokenizer=byte")  # noqa: E731
    for name, (change, said) in changes.items():
        yield Case("changing", f"{name} meanwhile", command, 3, said, "", partial(after, change))


def damaged_stores() -> Iterator[Case]:
    """Prepared tokens that are not as they were written: prepared again, and the log says why."""
    for name, (damage, why) in DAMAGES.items():
        said = f"(?s)encoding the train split of text again: .*{why}.*done: 2 steps"
        command = partial(damaged, damage)
        yield Case("store", f"{name} in prepared tokens", command, 0, said, "stored.txt")


def checkpoints_and_text() -> Iterator[Case]:
    """Other data than a checkpoint was trained with."""

    def changed(command: Callable[[str], list[str]], *extra: str) -> list[str]:
        arguments = command("word")
        write("good.txt", GOOD.replace(b"lazy", b"idle"))
        return [*arguments, *extra]

    resumed, differs = "the data differ .*: train, valid, test", "the test split is not the one"
    yield Case("checkpoint", "resumed on other data", partial(changed, resume), 4, resumed)
    yield Case("checkpoint", "evaluated on other data", partial(changed, evaluate), 4, differs)
    said = "(?s)n/a: 5 unknown tokens.*the test split has changed since training"
    wished = partial(changed, evaluate, "changed_data=true")
    yield Case("checkpoint", "evaluated on other data, as asked for", wished, 0, said)


def evaluated() -> Iterator[Case]:
    """Text that a model is measured on."""

    def case(kind: str, name: str, text: bytes, code: int, says: str) -> Case:
        def command() -> list[str]:
            return [*evaluate(kind), "data=text", f"data.test={write('t.txt', text)}"]

        return Case("evaluate", f"{name} measured by {kind}", command, code, says)

    unknown = "\u2603 \u2604 \u2605\n".encode()
    for kind in KINDS:
        yield case(kind, "an empty file", b"", 3, "t.txt is empty")
        yield case(kind, "one symbol", b"t", 3, r"test split of text \(t.txt\) has 1 tokens")
        refused = kind in ("char", "bpe")
        said = "t.txt: invalid UTF-8 at byte offset 7" if refused else "exact; "
        yield case(kind, "Latin-1", b"the caf\xe9 fox\n", 3 if refused else 0, said)
        said = "n/a: 3 unknown tokens" if kind in ("char", "word") else "bits/byte [0-9]"
        yield case(kind, "unknown symbols", unknown, 0, said)
    yield case("word", "whitespace", b" \t ", 3, r"\(t.txt\) has no tokens: all of it is white")


def prompts() -> Iterator[Case]:
    """What is to be continued."""
    for kind in KINDS:
        for name, prompt, code, says in (
            ("invalid UTF-8", "a\udcffb", 2, "prompt is not valid UTF-8"),
            ("unknown symbols", "\u2603 \u2604", 0, "tokens of the prompt are unknown"),
            ("NUL", "a\0b", 0, "a\0b"),
            ("nothing", "", 0, ""),
        ):
            lossless = kind in ("byte", "bpe")
            said = "\u2603 \u2604" if lossless and name == "unknown symbols" else says
            command = partial(generate, kind, prompt)
            yield Case("prompt", f"a prompt of {name} for {kind}", command, code, said)
