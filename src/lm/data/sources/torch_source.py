"""PyTorch's own Python source: real text that is there wherever torch is."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch

from lm import checks
from lm.data.corpus import Corpus, DataConfig, Document
from lm.data.sources.cut import check_fractions
from lm.data.sources.local import content_hash, existing, reading
from lm.errors import ConfigError, DataError

# Shorter lines (`return x`, `else:`) are the language, not a copy of another file.
MIN_LINE_BYTES = 20
# A held-out split is many files: none takes more than this part of it.
MAX_SHARE = 0.25

Files = dict[str, bytes]


@dataclass(kw_only=True, slots=True)
class TorchSourceConfig(DataConfig):
    """The Python files of some of torch's sub-packages, split by file.

    The same for everybody with one version of torch: files are taken in the order of the SHA-256
    of their relative paths, first for validation, then for testing, until the shares are full;
    files too large to be one of several in a split stay in training. A held-out file more than
    half of whose lines also stand in training (a test file: or in validation) is left out.

    Attributes:
        root: a torch package folder to read instead of the installed one.
        packages: sub-packages, relative to torch; the default is about 4.3 MB.
        valid_fraction: share of all bytes for validation, before duplicates are left out.
        test_fraction: the same for testing.
    """

    packages: list[str] = field(default_factory=lambda: ["nn", "optim", "utils"])
    valid_fraction: float = 0.055
    test_fraction: float = 0.055

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        check_fractions(self.valid_fraction, self.test_fraction)
        checks.at_least("len(data.packages)", len(self.packages), 1)

    def build(self, cache: Path) -> Corpus:
        """Read and split the installed source; the cache is not needed.

        Raises:
            ConfigError: a name in `packages` is none of torch's sub-packages.
            DataError: a split would be empty, or a file cannot be read.
        """
        root, title = Path(torch.__file__).parent, f"torch {torch.__version__}"
        if self.root is not None:
            root = existing("data.root", self.root)
            title = str(root)
        files = self._read(root)
        train, valid, test = self._split(files)
        size = sum(map(len, files.values()))
        notes = [
            f"{title}: {', '.join(self.packages)}; {len(files)} files, {size:,} bytes, "
            f"sha256 {content_hash(files.items())}"
        ]
        seen = {line for text in train.values() for line in telling_lines(text)}
        valid = _without_copies("valid", valid, seen, notes)
        seen.update(line for text in valid.values() for line in telling_lines(text))
        test = _without_copies("test", test, seen, notes)
        splits = {"train": train, "valid": valid, "test": test}
        for name, part in splits.items():
            if not part:
                raise DataError(
                    f"data.packages={self.packages} leaves no file for {name}",
                    "Add packages, or raise data.valid_fraction and data.test_fraction.",
                )
        documents = {
            split: tuple(Document(root / name) for name in part) for split, part in splits.items()
        }
        return Corpus(name="torch_source", **documents, notes=tuple(notes), prompt="def ")

    def _read(self, root: Path) -> Files:
        """All non-empty files by relative path, in the order of the paths."""
        paths: set[Path] = set()
        for package in self.packages:
            name = PurePosixPath(package)
            if (
                not package
                or name.is_absolute()
                or ".." in name.parts
                or not (root / name).is_dir()
            ):
                raise ConfigError(
                    f"data.packages: torch has no sub-package {package!r}",
                    "Name folders of the torch package, such as nn or distributed/optim.",
                )
            paths.update(path for path in (root / name).rglob("*.py") if path.is_file())
        with reading(root):
            contents = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        return {name: contents[name] for name in sorted(contents) if contents[name]}

    def _split(self, files: Files) -> tuple[Files, Files, Files]:
        total = sum(map(len, files.values()))
        shares = {"valid": total * self.valid_fraction, "test": total * self.test_fraction}
        filled = dict.fromkeys(shares, 0)
        home: dict[str, str] = {}
        for name in sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest()):
            size = len(files[name])
            for split, share in shares.items():
                if filled[split] < share and size <= MAX_SHARE * share:
                    filled[split] += size
                    home[name] = split
                    break
        train, valid, test = (
            {name: text for name, text in files.items() if home.get(name, "train") == split}
            for split in ("train", "valid", "test")
        )
        return train, valid, test


def telling_lines(text: bytes) -> list[bytes]:
    """The stripped lines that are long enough to tell a copy."""
    stripped = (line.strip() for line in text.split(b"\n"))
    return [line for line in stripped if len(line) >= MIN_LINE_BYTES]


def _is_copy(text: bytes, seen: Collection[bytes]) -> bool:
    lines = telling_lines(text)
    return sum(line in seen for line in lines) > 0.5 * len(lines)


def _without_copies(
    split: str, files: Mapping[str, bytes], seen: set[bytes], notes: list[str]
) -> Files:
    copies = {name for name, text in files.items() if _is_copy(text, seen)}
    if copies:
        size = sum(len(files[name]) for name in copies)
        notes.append(
            f"{split}: left out {len(copies)} of {len(files)} files ({size:,} bytes), more than "
            f"half of whose lines stand in another split: {', '.join(sorted(copies))}"
        )
    return {name: text for name, text in files.items() if name not in copies}
