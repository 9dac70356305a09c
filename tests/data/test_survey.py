"""What is in a text is read once, and never believed of another."""

import gzip
import os
import time
from pathlib import Path

import pytest

from lm.data import survey as survey_module
from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.stored import form_of
from lm.data.survey import forget, size, survey
from lm.data.tokenizers import ByteConfig
from lm.errors import DataError


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file, as far as the survey is told, which has lain there for long."""
    monkeypatch.setattr(survey_module, "REMEMBERED_BYTES", 3)
    path = tmp_path / "text.txt"
    path.write_bytes(b"some text")
    monkeypatch.setattr(time, "time", lambda: path.stat().st_ctime + 60)
    return path


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The documents that are read from now on."""
    chunks, seen = Document.chunks, []

    def noted(self: Document, size: int = 1 << 20) -> object:
        seen.append(self.path)
        return chunks(self, size)

    monkeypatch.setattr(Document, "chunks", noted)
    return seen


def test_large_files_are_remembered_until_they_change(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = reads(monkeypatch)
    first = survey([Document(text)], tmp_path / "memory")
    assert survey([Document(text)], tmp_path / "memory") == first
    assert len(seen) == 1
    survey([Document(text, 1)], tmp_path / "memory")
    assert len(seen) == 2
    before = text.stat()
    text.write_bytes(b"same size")
    os.utime(text, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some programs do
    changed = survey([Document(text)], tmp_path / "memory")
    assert len(seen) == 3
    assert changed.content != first.content


def test_what_changed_just_now_is_not_remembered(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: text.stat().st_ctime + 1)
    survey([Document(text)], tmp_path / "memory")
    assert not (tmp_path / "memory").exists()


def test_a_memory_that_is_damaged_is_none(text: Path, tmp_path: Path) -> None:
    first = survey([Document(text)], tmp_path / "memory")
    (file,) = (tmp_path / "memory").iterdir()
    for content in (b"", b"{}", b'{"num_bytes": "9", "content": "x"}'):
        file.write_bytes(content)
        assert survey([Document(text)], tmp_path / "memory") == first


def test_a_memory_that_was_wrong_is_given_up(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system whose times do not tell: the first try fails, the second reads the text."""
    corpus = Corpus("x", (Document(text),), (), ())
    cache = tmp_path / "cache"
    survey(corpus.train, cache / "surveys")
    (file,) = (cache / "surveys").iterdir()
    right = file.read_bytes()
    file.write_bytes(right.replace(survey(corpus.train).content.encode(), b"0" * 64))
    with pytest.raises(DataError, match="changed while they were read"):
        prepare(corpus, ByteConfig(), Unit.stream, cache, splits=["train"])
    store = prepare(corpus, ByteConfig(), Unit.stream, cache, splits=["train"]).stores["train"]
    assert bytes(store[:].tolist()) == b"some text"
    assert file.read_bytes() == right
    forget(corpus.train, cache / "surveys")
    assert not file.exists()


def test_the_length_of_json_is_that_of_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "abc"}\n{"text": "\\n"}\n')
    seen = reads(monkeypatch)
    documents = [Document(path, form=form_of(path, "text"))]
    assert size(documents) == size(documents) == len(b"abc\n\n")
    assert len(seen) == 1


def test_a_large_compressed_text_that_is_known_is_not_unpacked(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is wanted too, which only unpacking tells; another process begins at once."""
    packed = text.with_suffix(".gz")
    packed.write_bytes(gzip.compress(b"some text"))
    corpus = Corpus("x", (Document(packed, form=form_of(packed, None)),), (), ())
    store = prepare(corpus, ByteConfig(), Unit.stream, tmp_path, splits=["train"]).stores["train"]
    assert bytes(store[:].tolist()) == b"some text"
    survey_module._surveyed.clear()
    seen = reads(monkeypatch)
    prepare(corpus, ByteConfig(), Unit.stream, tmp_path, splits=["train"])
    assert size(corpus.train) == 9
    assert seen == []
