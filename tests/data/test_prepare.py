"""Preparation: the right tokens and counts, once per content, in bounded memory."""

import logging
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data import batch
from lm.data import pieces as pieces_module
from lm.data import prepare as prepare_module
from lm.data.corpus import SPLITS, Corpus, Document, Unit
from lm.data.counts import TextCounts
from lm.data.encoding import encode_split
from lm.data.pieces import pieces
from lm.data.prepare import prepare
from lm.data.store import TokenStore
from lm.data.tokenizers import (
    TOKENIZERS,
    BpeConfig,
    ByteConfig,
    ByteTokenizer,
    CharConfig,
    TokenizerConfig,
    WordConfig,
    WordTokenizer,
)
from lm.errors import DataError, StorageError

PTB = Path(__file__).resolve().parents[3] / "shared/data/ptb"
TEXT = "a naïve cat\n\n  sat\ton  the mat ".encode()


def corpus_of(folder: Path, *contents: bytes, valid: bytes = b"a cat\n") -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{k}.txt" for k in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    (folder / "valid.txt").write_bytes(valid)
    other = (Document(folder / "valid.txt"),)
    return Corpus("test", tuple(map(Document, paths)), other, other)


def config_of(kind: str) -> TokenizerConfig:
    return BpeConfig(vocab_size=300) if kind == "bpe" else TOKENIZERS[kind]()


@pytest.mark.skipif(not PTB.is_dir(), reason="needs ../shared/data/ptb")
def test_penn_treebank_has_the_published_counts(tmp_path: Path) -> None:
    corpus = Corpus("ptb", *((Document(PTB / f"{name}.txt"),) for name in SPLITS))
    prepared = prepare(corpus, WordConfig(), Unit.line, tmp_path)
    assert prepared.tokenizer.vocab_size == 10_000
    found = [(len(s), s.header.num_words, s.header.units.items) for s in prepared.stores.values()]
    assert found == [(929_589, 929_589, 42_068), (73_760, 73_760, 3_370), (82_430, 82_430, 3_761)]
    assert [s.header.unknown_count for s in prepared.stores.values()] == [0, 0, 0]
    assert prepared.stores["test"].lossless_reason() == "whitespace rewritten on 3761 lines"
    text = prepared.tokenizer.decode(prepared.stores["valid"][:])
    assert text.split() == (PTB / "valid.txt").read_bytes().split()


# Units


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("target", [3, 1 << 16])
def test_lines_are_encoded_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, target: int
) -> None:
    monkeypatch.setattr(pieces_module, "TARGET_BYTES", target)
    monkeypatch.setattr(pieces_module, "LONGEST_BYTES", 16)
    monkeypatch.setattr(batch, "BATCH_BYTES", 11)
    corpus = corpus_of(tmp_path, TEXT, b"", b"end\n")
    prepared = prepare(corpus, config_of(kind), Unit.line, tmp_path / "cache")
    tokenizer, store = prepared.tokenizer, prepared.stores["train"]
    lines = [b"a na\xc3\xafve cat\n", b"\n", b"  sat\ton  the mat ", b"end\n"]
    expected = [tokenizer.encode(line) for line in lines]
    assert store[:].tolist() == np.concatenate(expected).tolist()
    ends = np.cumsum([len(ids) for ids in expected]) - 1
    assert store.unit_ends(0, len(store)).tolist() == ends.tolist()


def test_documents_and_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "TARGET_BYTES", 2)
    corpus = corpus_of(tmp_path, b"a b\nc", b"", b" \n", b"  ", b"d e f")
    by_document = prepare(corpus, WordConfig(), Unit.document, tmp_path / "cache").stores["train"]
    assert by_document.unit_ends(0, 99).tolist() == [3, 4, 7]
    stream = prepare(corpus, WordConfig(), Unit.stream, tmp_path / "cache").stores["train"]
    assert stream[:].tolist() == by_document[:].tolist()
    assert stream.header.units is None


def test_byte_ranges_are_documents(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"0123456789")
    parts = [(Document(tmp_path / "text", a, b),) for a, b in [(0, 6), (6, 8), (8, None)]]
    stores = prepare(Corpus("x", *parts), ByteConfig(), Unit.stream, tmp_path / "cache").stores
    assert [bytes(stores[name][:].tolist()) for name in SPLITS] == [b"012345", b"67", b"89"]


# Counts


@settings(deadline=None, max_examples=150)
@given(
    lines=st.lists(
        st.lists(st.sampled_from([b"a", b"bc", b" ", b"\t", b"\r", b"<eos>"]), max_size=6)
    ),
    target=st.integers(1, 9),
)
def test_counts_of_the_text_equal_the_definition(
    tmp_path_factory: pytest.TempPathFactory, lines: list[list[bytes]], target: int
) -> None:
    text = b"\n".join(map(b"".join, lines))
    path = tmp_path_factory.getbasetemp() / "counted.txt"
    path.write_bytes(text)
    counts = TextCounts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "TARGET_BYTES", target)
        for piece in [p for _ in range(2) for p in pieces([Document(path)], WordTokenizer.cut, "")]:
            counts.add(piece, rewrites=True, reserved=WordTokenizer.reserved)
    rewritten = [
        line
        for line in text.split(b"\n")
        if b" ".join(line.split()) != line or b"<eos>" in line.split()
    ]
    assert counts.num_bytes == 2 * len(text)
    assert counts.num_words == 2 * (len(text.split()) + text.count(b"\n"))
    assert counts.rewritten_lines == 2 * len(rewritten)


@pytest.mark.parametrize(
    ("text", "kind", "covered"),
    [
        (b"word next\n", "word", (4, 1)),
        (b"  word next\n", "word", (6, 1)),
        (b" \nword\n", "word", (2, 1)),
        ("\u00e9t\u00e9 x\n".encode(), "char", (2, 0)),
        (b"\nx", "char", (1, 1)),
        (b"a b", "byte", (1, 1)),
        (b"torch torch torch\n", "bpe", (5, 1)),
    ],
)
def test_what_the_first_token_covers(
    tmp_path: Path, text: bytes, kind: str, covered: tuple[int, int]
) -> None:
    corpus = corpus_of(tmp_path, text, valid=text)
    header = (
        prepare(corpus, config_of(kind), Unit.stream, tmp_path / "cache").stores["train"].header
    )
    assert (header.first_token_bytes, header.first_token_words) == covered
    assert header.predicted_bytes == len(text) - covered[0]


def test_lossy_tokens_are_counted(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, b"a b <unk>\n", valid=b"a x\n<unk> b\r\n")
    header = prepare(corpus, WordConfig(), Unit.stream, tmp_path / "c").stores["valid"].header
    assert (header.unknown_count, header.rewritten_lines) == (1, 1)
    corpus = corpus_of(tmp_path, b"ab", valid=b"axyb")
    stores = prepare(corpus, CharConfig(), Unit.stream, tmp_path / "c").stores
    assert stores["valid"].lossless_reason() == "2 unknown tokens"
    assert stores["train"].lossless_reason() is None


# The cache


def test_the_second_time_nothing_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(corpus_of(tmp_path / "here", TEXT), WordConfig(), Unit.line, tmp_path / "cache")
    monkeypatch.setattr(prepare_module, "encode_split", None)
    monkeypatch.setattr(WordConfig, "build", None)
    moved = corpus_of(tmp_path / "elsewhere", TEXT)
    again = prepare(moved, WordConfig(), Unit.line, tmp_path / "cache")
    assert again.stores["train"].path == first.stores["train"].path
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint
    given = prepare(moved, first.tokenizer, Unit.line, tmp_path / "cache", splits=["test"])
    assert given.stores.keys() == {"test"}


def test_what_decides_the_tokens_decides_the_entry(tmp_path: Path) -> None:
    def path(config: TokenizerConfig, unit: Unit, *contents: bytes) -> Path:
        corpus = corpus_of(tmp_path / "text", *contents)
        return prepare(corpus, config, unit, tmp_path / "cache").stores["train"].path

    different = {
        path(WordConfig(), Unit.stream, b"a b\n", b"c"),
        path(WordConfig(), Unit.document, b"a b\n", b"c"),
        path(WordConfig(), Unit.document, b"a b\nc"),
        path(WordConfig(unknown="?"), Unit.document, b"a b\nc"),
        path(WordConfig(), Unit.document, b"a b\nd"),
    }
    assert len(different) == 5


def test_a_damaged_entry_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = corpus_of(tmp_path, TEXT)
    path = prepare(corpus, WordConfig(), Unit.stream, tmp_path / "cache").stores["train"].path
    raw = (path / "shard-00000.bin").read_bytes()
    (path / "shard-00000.bin").write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    next((tmp_path / "cache/tokenizers").glob("*.json")).write_bytes(b"{")
    killed = path.with_name(f".part-{path.name}")
    killed.mkdir()
    with caplog.at_level(logging.WARNING):
        again = prepare(corpus, WordConfig(), Unit.stream, tmp_path / "cache")
    assert "training the tokenizer again" in caplog.text
    assert "encoding the train split of test again" in caplog.text
    assert (again.stores["train"].path / "shard-00000.bin").read_bytes() == raw
    assert not killed.exists()


def test_several_may_prepare_the_same_text_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, because they start at once; the lock and the rename work between processes too."""
    corpus = corpus_of(tmp_path, b"some words and more words\n" * 4_000)
    writes = []

    def counted(path: Path, *args: object, **kwargs: object) -> TokenStore:
        writes.append(path)
        return encode_split(path, *args, **kwargs)

    def contend(_: int) -> str:
        prepared = prepare(corpus, WordConfig(), Unit.line, tmp_path / "cache")
        stores = prepared.stores
        tokenizer = prepared.tokenizer
        stores["train"].verify(tokenizer.fingerprint, tokenizer.vocab_size)
        return stores["train"].fingerprint

    monkeypatch.setattr(prepare_module, "encode_split", counted)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(contend, range(8)))) == 1
    assert len(writes) == 2  # train; valid and test are the same text


# Errors


def test_a_split_without_tokens_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the valid split of test \(.*valid.txt\) has no tokens"):
        prepare(corpus_of(tmp_path, b"a", valid=b" "), WordConfig(), Unit.line, tmp_path / "cache")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the valid split of test \(.*valid.txt\) is empty"):
        prepare(corpus_of(tmp_path, b"a", valid=b""), ByteConfig(), Unit.stream, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_invalid_utf8_outside_the_training_split_is_located(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, b"abc", valid=b"ab\xffc")
    with pytest.raises(DataError, match=r"valid\.txt: invalid UTF-8 at byte offset 2"):
        prepare(corpus, CharConfig(), Unit.stream, tmp_path / "cache")


def test_a_file_that_changes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(tmp_path, b"abc")

    def build_and_write(self: ByteConfig, documents: object) -> ByteTokenizer:
        corpus.train[0].path.write_bytes(b"abd")
        return ByteTokenizer()

    monkeypatch.setattr(ByteConfig, "build", build_and_write)
    with pytest.raises(DataError, match=r"train split of test \(.*\) changed while they were read"):
        prepare(corpus, ByteConfig(), Unit.stream, tmp_path / "cache")


def test_a_read_only_cache_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    corpus = corpus_of(tmp_path, b"abc")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="cannot write") as caught:
        prepare(corpus, ByteConfig(), Unit.stream, tmp_path / "cache")
    assert caught.value.code == 6


# Memory


@pytest.mark.parametrize(("kind", "repeats"), [("byte", 2_000_000), ("char", 600_000)])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str, repeats: int) -> None:
    line = b"one line without an end, " * repeats
    big = tmp_path / "big.txt"
    big.write_bytes(line)
    corpus = Corpus("big", (Document(big),), (Document(big, 0, 99),), (Document(big, 0, 99),))
    tracemalloc.start()
    try:
        prepared = prepare(corpus, TOKENIZERS[kind](), Unit.stream, tmp_path / "cache")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(prepared.stores["train"]) == len(line)
    assert peak < 20_000_000


MEASURE = """
import sys, threading, time
from pathlib import Path
import torch
from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.tokenizers import TOKENIZERS

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024

peak, done = 0.0, threading.Event()
def sample():
    global peak
    while not done.wait(0.02):
        peak = max(peak, anonymous())

thread = threading.Thread(target=sample)
thread.start()
big = Path(sys.argv[1])
corpus = Corpus("big", (Document(big),), (Document(big, 0, 999),), (Document(big, 0, 999),))
started = time.perf_counter()
prepare(corpus, TOKENIZERS[sys.argv[2]](), Unit[sys.argv[3]], Path(sys.argv[4]))
seconds = time.perf_counter() - started
done.set(); thread.join()
print(peak, big.stat().st_size / 1e6 / seconds)
"""


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Words of a Zipf law with a long tail, 20 a line."""
    path = tmp_path_factory.mktemp("gigabyte") / "big.txt"
    rng = np.random.default_rng(0)
    letters = str.maketrans("0123456789", "etaoinshrd")
    vocabulary = [str(k).translate(letters).encode() for k in range(400_001)]
    with path.open("wb") as file:
        while file.tell() < 1_000_000_000:
            words = [vocabulary[k] for k in np.minimum(rng.zipf(1.2, 100_000), 400_000)]
            lines = [b" ".join(words[k : k + 20]) for k in range(0, len(words), 20)]
            file.write((b"\n".join(lines) + b"\n") * 20)
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
@pytest.mark.parametrize(
    ("kind", "unit"),
    [("byte", "line"), ("char", "line"), ("word", "stream"), ("word", "line"), ("bpe", "stream")],
)
def test_a_gigabyte_is_prepared_in_700_megabytes(
    gigabyte: Path, tmp_path: Path, kind: str, unit: str
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as cache:
        command = [sys.executable, "-c", MEASURE, str(gigabyte), kind, unit, cache]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peak, speed = map(float, output.split())
    print(f"{kind} {unit}: {peak:.0f} MB, {speed:.1f} MB/s")  # noqa: T201 (for -s)
    assert peak < 700
