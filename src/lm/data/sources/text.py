"""Any text of the user's: a file, a glob or a folder."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lm.data.corpus import SPLITS, Corpus, DataConfig, Document
from lm.data.sources.cut import carve, check_fractions
from lm.data.sources.local import located, reading, size_of
from lm.data.stored import form_of
from lm.errors import ConfigError, DataError

_REMEDY = "Set data.path=FILE to have it cut, or data.train= with data.valid=, data.test=."


@dataclass(kw_only=True, slots=True)
class TextConfig(DataConfig):
    """Text files, cut by fractions or with splits of their own.

    Each of `path`, `train`, `valid` and `test` is a file, a glob or a folder, which is searched
    through and through, hidden files left out; files are read in the order of their paths.
    Relative ones start from `root`. Either `path` or `train` is given. Splits that are not given
    are cut off the end, validation before test, at line starts; the bytes stay as they are.

    Files named `.gz` or `.zst` are unpacked as they are read, and go to a split as a whole. In
    files named `.jsonl` or `.ndjson` each line is a JSON object with a document in `field`.

    Attributes:
        path: the whole text, to be cut into splits.
        train: the training split alone.
        valid: the validation split.
        test: the test split.
        field: of JSON lines, which holds the text; None takes the lines themselves for text.
        pattern: which files of a folder count, such as `*.txt`.
        valid_fraction: share of the bytes for validation where `valid` is not given.
        test_fraction: share of the bytes for testing where `test` is not given.
    """

    path: str | None = None
    train: str | None = None
    valid: str | None = None
    test: str | None = None
    field: str | None = "text"
    pattern: str = "*"
    valid_fraction: float = 0.05
    test_fraction: float = 0.05

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        check_fractions(self.valid_fraction, self.test_fraction)
        if not self.pattern:
            raise ConfigError("data.pattern must not be empty", "Set data.pattern='*.txt'.")
        self._check_combination()

    def _check_combination(self) -> None:
        for name in SPLITS:
            if self.path is not None and (value := getattr(self, name)) is not None:
                raise ConfigError(
                    f"data.path={self.path} and data.{name}={value} exclude each other", _REMEDY
                )

    def _held_out_only(self, notes: list[str]) -> Corpus:
        """No text to train on: enough for evaluating a model on a file of one's own."""
        splits = {
            name: self._documents(self._find(name, notes))
            for name in ("valid", "test")
            if getattr(self, name) is not None
        }
        return Corpus("text", (), splits.get("valid", ()), splits.get("test", ()), tuple(notes))

    def build(self, cache: Path) -> Corpus:
        """Find the files and cut what has to be cut; the cache is not needed.

        Raises:
            ConfigError: a path is empty, or there is none.
            DataError: a path matches nothing or an empty file, or the text is too short to cut.
        """
        notes: list[str] = []
        # Not before: a checkpoint has no path where the run's had read the environment.
        if all(getattr(self, name) is None for name in ("path", *SPLITS)):
            raise ConfigError("data=text needs data.path or data.train, got neither", _REMEDY)
        if self.path is None and self.train is None:
            return self._held_out_only(notes)
        body = self._find("train" if self.path is None else "path", notes)
        given = {
            name: self._find(name, notes)
            for name in ("valid", "test")
            if getattr(self, name) is not None
        }
        for name, paths in given.items():
            if shared := {path.resolve() for path in body} & {path.resolve() for path in paths}:
                notes.append(f"{name} shares {len(shared)} file(s) with train")
        cut = [name for name in ("valid", "test") if name not in given]
        fractions = [getattr(self, f"{name}_fraction") for name in cut]
        train, *rest = carve(body, fractions, field=self.field)
        splits = {name: self._documents(paths) for name, paths in given.items()}
        splits.update(zip(cut, rest, strict=True))
        return Corpus("text", train, splits["valid"], splits["test"], tuple(notes))

    def _documents(self, paths: Sequence[Path]) -> tuple[Document, ...]:
        return tuple(Document(path, form=form_of(path, self.field)) for path in paths)

    def _find(self, name: str, notes: list[str]) -> list[Path]:
        """The files with something in them that the field `name` stands for."""
        value: str = getattr(self, name)
        path = located(f"data.{name}", value, self.root)
        with reading(path):
            found = [path] if path.is_file() else sorted(self._search(path, value))
        if not found:
            what = "neither a file nor a folder:" if path.exists() else "no such file:"
            if path.is_dir():
                what = f"no file matching {self.pattern!r} in"
            raise DataError(
                f"data.{name}={value}: {what} {path}",
                "Name a file, a folder or a glob such as 'corpus/*.txt'.",
            )
        full = [file for file in found if size_of(file)]
        if not full:
            raise DataError(f"data.{name}: {found[0]} is empty", "Name a file with text in it.")
        if empty := len(found) - len(full):
            notes.append(f"{name}: {empty} empty file(s) of {len(found)} left out")
        return full

    def _search(self, path: Path, value: str) -> Iterator[Path]:
        if path.is_dir():
            for file in path.rglob("*"):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if not hidden and file.match(self.pattern) and file.is_file():
                    yield file
            return
        base = Path(self.root or "").expanduser()
        wanted = str(Path(value).expanduser())
        # Path.glob refuses absolute patterns.
        for match in glob.iglob(wanted, root_dir=base, recursive=True):  # noqa: PTH207
            if (base / match).is_file():
                yield base / match
