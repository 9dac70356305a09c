"""What a data source is: three splits, each a sequence of byte ranges of local files."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from lm import checks
from lm.data.stored import PLAIN, Form, Text, documents_of, unpacked
from lm.data.truth import Truth
from lm.errors import DataError

SPLITS = ("train", "valid", "test")


class Unit(Enum):
    """Where the recurrent state returns to its initial value, in training and evaluation alike."""

    stream = "stream"
    document = "document"
    line = "line"


@dataclass(frozen=True, slots=True)
class Document:
    """A byte range of a file; the whole file unless said otherwise.

    Attributes:
        start, stop: only of files that are not compressed.
        truth: what the bytes of the file cost the source that drew them, where that is known.
        form: how the text lies in the file; one of JSON lines holds many documents.
    """

    path: Path
    start: int = 0
    stop: int | None = None
    truth: Truth | None = None
    form: Form = PLAIN

    def texts(self, size: int = 1 << 20) -> Iterator[Text]:
        """What is encoded by itself, in the order of the file; each has to be read to its end.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        chunks = self.chunks(size)
        if self.form.field is None:
            yield Text(str(self.path), self.start, chunks)
        else:
            yield from documents_of(self.path, self.start, chunks, self.form.field)

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes, unpacked and else unchanged, about `size` at a time.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        try:
            with self.path.open("rb") as file:
                if self.form.compression is not None:
                    assert (self.start, self.stop) == (0, None), "a compressed file is whole"
                    yield from unpacked(self.path, file, self.form.compression, size)
                    return
                if self.start:  # a pipe cannot seek, and has no parts
                    file.seek(self.start)
                left = (1 << 62) if self.stop is None else self.stop - self.start
                while left > 0 and (chunk := file.read(min(size, left))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise DataError(
                f"cannot read {self.path}: {error.strerror}", "Check the path and its permissions."
            ) from error

    @property
    def size(self) -> int | None:
        """Bytes of the text, as far as the file system knows them.

        Raises:
            OSError: the file is missing.
        """
        if self.form != PLAIN:
            return None
        return (self.path.stat().st_size if self.stop is None else self.stop) - self.start


@dataclass(frozen=True, slots=True)
class Corpus:
    """A source resolved to local files.

    Attributes:
        name: short name for logs, such as `ptb`.
        notes: facts for the log, one a line (files left out, a checksum that differs).
        prompt: what a sample of this kind of text may begin with.
    """

    name: str
    train: tuple[Document, ...]
    valid: tuple[Document, ...]
    test: tuple[Document, ...]
    notes: tuple[str, ...] = ()
    prompt: str = ""

    def split(self, name: str) -> tuple[Document, ...]:
        """The documents of `train`, `valid` or `test`."""
        assert name in SPLITS, name
        documents: tuple[Document, ...] = getattr(self, name)
        return documents

    def describe(self, name: str) -> str:
        """A split with the file that it is in, for messages."""
        paths = list(dict.fromkeys(document.path for document in self.split(name)))
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        where = f" ({paths[0]}{more})" if paths else ""
        return f"the {name} split of {self.name}{where}"


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What every source has.

    Attributes:
        root: local folder or file to read instead of downloading.
        unit: where the recurrent state is reset.
        train_bytes: train on the first so many bytes only (up to a line end); None is all.
    """

    group: ClassVar[str] = "data"

    root: str | None = None
    unit: Unit = Unit.stream
    train_bytes: int | None = None

    def __post_init__(self) -> None:
        checks.at_least("data.train_bytes", self.train_bytes, 1)

    def build(self, cache: Path) -> Corpus:
        """Find (or fetch into `cache`) the files of the three splits."""
        raise NotImplementedError
