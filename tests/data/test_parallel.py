"""Encoding by several processes, and going on where a killed one left off: the same shards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data import batch as batch_module
from lm.data import journal, workers
from lm.data import pieces as pieces_module
from lm.data.batch import Batch, BatchEncoder, Encoded, batches
from lm.data.corpus import Corpus, Document, Unit
from lm.data.counts import TextCounts
from lm.data.encoder import Split
from lm.data.encoding import encode_split
from lm.data.pieces import pieces
from lm.data.prepare import prepare
from lm.data.store import TokenStore
from lm.data.survey import survey
from lm.data.tokenizers import BpeConfig, BpeTokenizer, Tokenizer, WordConfig, WordTokenizer
from lm.data.workers import Workers
from lm.errors import DataError, OutOfMemoryError

WORDS = WordTokenizer([b"<eos>", b"<unk>", b"a", b"cat", b"sat"], b"<unk>", 1)
LINES = b"a cat sat\n a  dog\n\nthe cat <eos>\nsat sat sat\n" * 30


def files_of(store: TokenStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.path.iterdir())}


def split_of(*paths: Path) -> Split:
    documents = tuple(map(Document, paths))
    return Split("text", "the text", documents, survey(documents).content)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of a kilobyte have many pieces, batches and jobs."""
    monkeypatch.setattr(pieces_module, "TARGET_BYTES", 50)
    monkeypatch.setattr(batch_module, "BATCH_BYTES", 120)
    monkeypatch.setattr(workers, "WORTHWHILE_BYTES", 100)


# Parts are put together again


@settings(deadline=None, max_examples=50)
@given(
    texts=st.lists(
        st.lists(st.sampled_from([b"a", b"bc", b" ", b"\t", b"\n", b"<eos>"]), max_size=8),
        min_size=1,
        max_size=3,
    ),
    target=st.integers(1, 5),
    batch_bytes=st.integers(1, 9),
)
def test_counts_of_parts_add_up(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[bytes]],
    target: int,
    batch_bytes: int,
) -> None:
    documents = []
    for number, parts in enumerate(texts):
        path = tmp_path_factory.getbasetemp() / f"part-{number}"
        path.write_bytes(b"".join(parts))
        documents.append(Document(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "TARGET_BYTES", target)
        patch.setattr(batch_module, "BATCH_BYTES", batch_bytes)
        stream = list(pieces(documents, WORDS.cut, None))
        whole, put_together = BatchEncoder(WORDS, Unit.line).encode(Batch(stream)), TextCounts()
        ids = []
        for batch in batches(stream):
            again = Batch.of(batch.frames())
            part = Encoded.of(BatchEncoder(WORDS, Unit.line).encode(again).frames())
            put_together.follow(part.counts)
            ids.append(part.ids)
    assert np.concatenate(ids).tolist() == whole.ids.tolist()
    kept = ("first_counted", "closed")
    expected = {name: n for name, n in asdict(whole.counts).items() if name not in kept}
    assert {name: asdict(put_together)[name] for name in expected} == expected


ODD = st.lists(st.sampled_from("aZ09 \t\n\r\v._,'(é\u0301\u00a0\u2028中²\x00\x1c"), max_size=14)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> BpeTokenizer:
    path = tmp_path_factory.mktemp("bpe") / "text"
    path.write_bytes(b"def cat(self, x0):\n    return 'sat'  # a 2009 _cat_\n\n" * 40)
    return BpeConfig(vocab_size=400).build([Document(path)])


@settings(deadline=None, max_examples=150)
@given(text=ODD.map("".join))
def test_words_looked_up_are_what_the_library_makes_of_the_whole(
    bpe: BpeTokenizer, text: str
) -> None:
    whole = bpe._library.encode(text, add_special_tokens=False).ids
    assert bpe.encode(text.encode()).tolist() == whole


# Several processes


@pytest.mark.usefixtures("small")
def test_shards_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(LINES + path.name.encode())
    corpus = Corpus("x", tuple(map(Document, paths)), (), ())
    found = [
        prepare(corpus, WordConfig(min_count=2), Unit.line, tmp_path / str(count),
                splits=["train"], workers=count)
        for count in (1, 2)
    ]  # fmt: skip
    one, two = (files_of(prepared.stores["train"]) for prepared in found)
    assert one == two
    assert found[0].tokenizer.fingerprint == found[1].tokenizer.fingerprint
    assert len(found[1].stores["train"]) == 2 * len(WORDS.encode(LINES)) + 2


def test_what_happens_in_a_process_is_told(tmp_path: Path, bpe: BpeTokenizer) -> None:
    setup = BatchEncoder(bpe, Unit.stream).frames()
    bad = Batch([pieces_module.Piece(b"\xff", True)]).frames()
    with Workers(1, b"encode", setup) as one, pytest.raises(RuntimeError, match="UnicodeDecode"):
        list(one.map([bad]))
    with Workers(1, b"count words", []) as one:
        assert next(one.map([[b"a b a"]]))[0] == b"a b"
        os.kill(one._processes[0].pid, signal.SIGKILL)
        with pytest.raises(OutOfMemoryError, match="was killed") as caught:
            list(one.map([[b"a"]] * 9))
    assert caught.value.code == 7
    assert one._processes[0].poll() is not None


# Going on


class Killed(BaseException):
    """Not an `Exception`, as a signal is not."""


def interrupted(
    path: Path, split: Split, tokenizer: Tokenizer, after: int, patch: pytest.MonkeyPatch
) -> None:
    """Encode until the process would have been killed, with so many batches done."""
    encode = BatchEncoder.encode

    def counted(self: BatchEncoder, batch: Batch) -> Encoded:
        nonlocal after
        after -= 1
        if after < 0:
            raise Killed
        return encode(self, batch)

    with patch.context() as inner:
        inner.setattr(BatchEncoder, "encode", counted)
        with pytest.raises(Killed):
            encode_split(path, split, tokenizer, Unit.line, shard_tokens=70)


@pytest.mark.usefixtures("small")
def test_a_killed_preparation_goes_on_to_the_same_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text").write_bytes(LINES)
    split = split_of(tmp_path / "text")
    whole = encode_split(tmp_path / "whole", split, WORDS, Unit.line, shard_tokens=70)
    assert len(whole.header.shards) == 7
    expected = files_of(whole)
    caplog.set_level("INFO")
    for after in range(8):
        path = tmp_path / f"after-{after}"
        interrupted(path, split, WORDS, after, monkeypatch)
        interrupted(path, split, WORDS, 0, monkeypatch)
        assert not path.exists()
        assert files_of(encode_split(path, split, WORDS, Unit.line, shard_tokens=70)) == expected
    assert "going on after 5 finished shards" in caplog.text
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["shard-00001.bin", "units.bin", journal.JOURNAL])
def test_what_is_damaged_is_not_built_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    (tmp_path / "text").write_bytes(LINES)
    split = split_of(tmp_path / "text")
    expected = files_of(encode_split(tmp_path / "w", split, WORDS, Unit.line, shard_tokens=70))
    interrupted(tmp_path / "x", split, WORDS, 7, monkeypatch)
    file = tmp_path / ".part-x" / damage
    raw = file.read_bytes()
    file.write_bytes(raw[:40] + bytes([raw[40] ^ 1]) + raw[41:-3])
    store = encode_split(tmp_path / "x", split, WORDS, Unit.line, shard_tokens=70)
    assert files_of(store) == expected


@pytest.mark.usefixtures("small")
def test_a_text_that_changed_before_it_went_on_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of another text with the same hash later on: shards made meanwhile are not believed."""
    text = tmp_path / "text"
    text.write_bytes(LINES)
    split = split_of(text)
    expected = files_of(encode_split(tmp_path / "w", split, WORDS, Unit.line, shard_tokens=70))
    text.write_bytes(b"sat" + LINES[3:])
    interrupted(tmp_path / "x", split, WORDS, 7, monkeypatch)
    text.write_bytes(LINES)
    store = encode_split(tmp_path / "x", split, WORDS, Unit.line, shard_tokens=70)
    assert "changed since it was encoded in part" in caplog.text
    assert files_of(store) == expected
    text.write_bytes(b"sat" + LINES[3:])
    with pytest.raises(DataError, match="changed while they were read"):
        encode_split(tmp_path / "y", split, WORDS, Unit.line, shard_tokens=70)
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.usefixtures("small")
def test_a_shard_is_on_the_disk_before_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def record(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    if not Path("/proc/self/fd").exists():
        pytest.skip("descriptors have names on Linux only")
    (tmp_path / "text").write_bytes(LINES)
    monkeypatch.setattr(os, "fsync", record)
    encode_split(tmp_path / "x", split_of(tmp_path / "text"), WORDS, Unit.line, shard_tokens=300)
    first = synced.index("shard-00000.bin")
    assert synced[first : first + 4] == [
        "shard-00000.bin", "units.bin", journal.JOURNAL, ".part-x"
    ]  # fmt: skip


# Killed in earnest

PREPARE = """
import sys
from pathlib import Path
from lm.data import encoding
from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.tokenizers import WordConfig
import functools
from lm.data import prepare as module
module.encode_split = functools.partial(encoding.encode_split, shard_tokens=1 << 20)
corpus = Corpus("x", (Document(Path(sys.argv[1])),), (), ())
prepare(corpus, WordConfig(), Unit.line, Path(sys.argv[2]), splits=["train"],
        workers=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large") / "text"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(50):
            words = np.minimum(rng.zipf(1.3, 200_000), 50_000).astype("S")
            file.writelines(b" ".join(words[k : k + 20]) + b"\n" for k in range(0, 200_000, 20))
    yield path
    path.unlink()


@pytest.mark.slow
def test_killed_again_and_again(large: Path, tmp_path: Path) -> None:
    """kill -9 at ten moments, with one process and with two: the same shards at the end."""
    command = [sys.executable, "-c", PREPARE, str(large)]
    subprocess.run([*command, str(tmp_path / "whole"), "1"], check=True)
    whole = next((tmp_path / "whole/tokens").glob("[!.]*"))
    expected = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    seconds = np.random.default_rng(1).uniform(0.3, 4.0, 10)
    killed = 0
    for number, wait in enumerate(seconds):
        process = subprocess.Popen([*command, str(tmp_path / "killed"), str(1 + number % 2)])
        time.sleep(wait)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    subprocess.run([*command, str(tmp_path / "killed"), "2"], check=True)
    store = tmp_path / "killed/tokens" / whole.name
    assert {path.name: path.read_bytes() for path in store.iterdir()} == expected
    assert killed >= 3
