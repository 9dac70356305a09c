"""Text that is compressed or in JSON lines: the same documents, or an error that says where."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from lm.data import stored
from lm.data.corpus import Corpus, Document
from lm.data.sources.cut import carve, first_bytes
from lm.data.sources.text import TextConfig
from lm.data.stored import Compression, Form, form_of
from lm.errors import DataError

TEXT = b"first line\nsecond \xc3\xa9 line\n" * 500


def texts(path: Path, field: str | None = "text") -> list[bytes]:
    document = Document(path, form=form_of(path, field))
    return [b"".join(text.chunks) for text in document.texts()]


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def lines(*documents: str) -> bytes:
    return "".join(json.dumps({"text": text, "id": 7}) + "\n" for text in documents).encode()


def test_the_name_says_what_a_file_is() -> None:
    names = ["a.txt", "a.TXT.GZ", "a.b.zst", "a.jsonl", "a.x.ndjson.gz", ".jsonl"]
    gz, zst = Compression.gzip, Compression.zstd
    assert [form_of(Path(name), "text") for name in names] == [
        Form(), Form(gz), Form(zst), Form(None, "text"), Form(gz, "text"), Form()
    ]  # fmt: skip
    assert form_of(Path("a.jsonl.gz"), None) == Form(gz)


def test_compressed_text_is_the_text(tmp_path: Path) -> None:
    assert texts(written(tmp_path / "a.gz", gzip.compress(TEXT) + gzip.compress(b"end"))) == [
        TEXT + b"end"
    ]
    assert texts(written(tmp_path / "a.zst", zstd(TEXT) + zstd(b"end"))) == [TEXT + b"end"]


def test_json_lines_are_documents(tmp_path: Path) -> None:
    content = lines("one\ntwo", "", "ends\n", "é\u2028x") + b"\n  \n" + lines("last")[:-1]
    expected = [b"one\ntwo\n", b"\n", b"ends\n", "é\u2028x\n".encode(), b"last\n"]
    assert texts(written(tmp_path / "a.jsonl", content)) == expected
    assert texts(written(tmp_path / "a.jsonl.zst", zstd(content))) == expected
    assert texts(tmp_path / "a.jsonl", None) == [content]


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
@pytest.mark.parametrize("fault", ["cut", "flipped", "other"])
def test_damage_is_located(tmp_path: Path, name: str, fault: str) -> None:
    whole = gzip.compress(TEXT) if name == "a.gz" else zstd(TEXT)
    damaged = {
        "cut": whole[:-9], "flipped": whole[:3] + b"\xff" + whole[4:], "other": b"plain text" * 9
    }  # fmt: skip
    with pytest.raises(DataError, match=rf"{name}: damaged \w+ near byte offset \d+: .+"):
        texts(written(tmp_path / name, damaged[fault]))


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_a_bomb_is_refused_before_it_is_large(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "FREE_BYTES", 1 << 20)
    zeros = bytes(30_000_000)
    path = written(tmp_path / name, gzip.compress(zeros) if name == "a.gz" else zstd(zeros))
    seen: list[int] = []
    chunks = Document(path, form=form_of(path, None)).chunks()
    with pytest.raises(DataError, match=r"unpack to more than .* over 100 times as many"):
        seen.extend(map(len, chunks))
    assert sum(seen) < 5_000_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", r"line 2 cannot be read: Expecting"),
        (b"[" * 100_000, r"line 2 cannot be read: "),
        (b'{"text": "\\ud800"}', r"line 2 cannot be read: .*surrogate"),
        (b"\xff", r"line 2 cannot be read"),
        (b"[1]", r"line 2 has no text in 'text'"),
        (b'{"t": "x"}', r"line 2 has no text in 'text'"),
        (b'{"text": 3}', r"line 2 has no text in 'text'"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl: {said}"):
        texts(written(tmp_path / "a.jsonl", lines("fine") + line + b"\n"))


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LONGEST_LINE", 100)
    with pytest.raises(DataError, match="a line of more than 100 bytes"):
        texts(written(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 100))


def test_json_is_cut_between_lines_however_long(tmp_path: Path) -> None:
    long = "x" * 200_000
    path = written(tmp_path / "a.jsonl", lines(*[long] * 7, *["y"] * 3))
    splits = carve([path], [0.3, 0.2], field="text")
    found = [[b"".join(t.chunks) for d in split for t in d.texts()] for split in splits]
    assert [len(part) for part in found] == [4, 2, 4]
    assert [len(text) for part in found for text in part] == [200_001] * 7 + [2] * 3
    assert splits[0][0].form == Form(None, "text")
    (kept,) = first_bytes(splits[0], 300_000)
    assert kept.stop == 2 * len(lines(long))


def test_compressed_files_go_to_splits_as_a_whole(tmp_path: Path) -> None:
    for number in range(6):
        written(tmp_path / f"{number}.txt.gz", gzip.compress(TEXT + bytes([number])))
    corpus = TextConfig(path=str(tmp_path), test_fraction=0.3).build(tmp_path)
    names = [[d.path.name[0] for d in corpus.split(name)] for name in ("train", "valid", "test")]
    assert names == [["0", "1", "2"], ["3"], ["4", "5"]]
    with pytest.raises(DataError, match="is compressed and cannot be cut"):
        first_bytes(corpus.train, 10)
    with pytest.raises(DataError, match="2 are too few for 3 splits"):
        carve([tmp_path / "0.txt.gz", tmp_path / "1.txt.gz"], [0.1, 0.1])
    few = carve([tmp_path / f"{number}.txt.gz" for number in range(3)], [0.4, 0.4])
    assert [len(split) for split in few] == [1, 1, 1]


def test_a_corpus_may_mix_them(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", lines("a", "b"))
    written(tmp_path / "b.gz", gzip.compress(b"c"))
    written(tmp_path / "c.txt", b"d")
    corpus: Corpus = TextConfig(train=str(tmp_path), valid=str(tmp_path / "c.txt"),
                                test=str(tmp_path / "b.gz")).build(tmp_path)  # fmt: skip
    found = [b"".join(t.chunks) for d in corpus.train for t in d.texts()]
    assert found == [b"a\n", b"b\n", b"c", b"d"]
