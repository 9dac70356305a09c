"""What every drawn corpus has: its sizes and seed, and its place in the cache."""

import hashlib
import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lm import checks
from lm.data.corpus import SPLITS, Corpus, DataConfig, Document
from lm.data.synthetic.files import truth_of, write_split
from lm.data.synthetic.process import LINE_END, Process
from lm.data.truth import NATS_DTYPE, Truth
from lm.errors import ConfigError
from lm.runtime.files import folder_atomically, restore_interrupted, storage_errors
from lm.runtime.lock import exclusive

# Raised when the same configuration would give another text than before.
VERSION = 1


@dataclass(kw_only=True, slots=True)
class SyntheticConfig(DataConfig):
    """A text drawn from a known process, its three splits independently of each other.

    Attributes:
        seed: of the process's own parameters and of the text; the run's seed changes neither.
        tokens, valid_tokens, test_tokens: symbols of the splits, rounded up to whole lines.
    """

    kind: ClassVar[str]

    seed: int = 1
    tokens: int = 400_000
    valid_tokens: int = 40_000
    test_tokens: int = 40_000

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        checks.at_least("data.seed", self.seed, 0)
        for name in ("tokens", "valid_tokens", "test_tokens"):
            checks.at_least(f"data.{name}", getattr(self, name), 2)
            checks.at_most(f"data.{name}", getattr(self, name), checks.MOST_HELD)
        if self.root is not None:
            raise ConfigError(
                f"data.root={self.root} has no effect: data={self.kind} is drawn, not read",
                "Drop it, or read a text with data=text.",
            )

    @abstractmethod
    def process(self, draws: np.random.Generator) -> Process:
        """The process, its parameters drawn from `draws`."""

    def build(self, cache: Path) -> Corpus:
        """Draw the text into the cache, or find it there.

        Raises:
            StorageError: the cache cannot be written.
        """
        process = self.process(self.draws(0))
        folder = cache / "sources" / f"{self.kind}-{self._key()}" / "files"
        if not folder.is_dir():
            with exclusive(folder):
                restore_interrupted(folder.parent)
                if not folder.is_dir():
                    self._write(process, folder)
        train, valid, test = (
            Document(folder / f"{split}.txt", truth=truth_of(folder, split)) for split in SPLITS
        )
        assert train.truth is not None
        notes = self._notes(process, train.path, train.truth)
        return Corpus(self.kind, (train,), (valid,), (test,), tuple(notes))

    def _write(self, process: Process, folder: Path) -> None:
        lengths = (self.tokens, self.valid_tokens, self.test_tokens)
        with storage_errors(f"write {folder}"), folder_atomically(folder) as new:
            for number, (split, length) in enumerate(zip(SPLITS, lengths, strict=True), 1):
                write_split(new, split, process, process.draw(length, self.draws(number)))

    def draws(self, stream: int) -> np.random.Generator:
        """One of the seed's independent streams: 0 for the process, 1, 2, 3 for the splits."""
        return np.random.Generator(np.random.PCG64([self.seed, stream]))

    def _key(self) -> str:
        """What decides the text, and not how it is read."""
        read = {"root", "unit", "train_bytes"}
        values = {name: value for name, value in asdict(self).items() if name not in read}
        text = json.dumps({"version": VERSION, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _notes(self, process: Process, text: Path, truth: Truth) -> list[str]:
        rate, how = process.entropy_rate, ""
        if rate is None:
            raw = text.read_bytes()
            num_symbols = len(raw.split()) + raw.count(LINE_END)
            rate = float(np.fromfile(truth.nats, NATS_DTYPE).sum()) / num_symbols
            how = f", estimated from {num_symbols:,} of them"
        return [f"entropy rate {rate:.4f} nats per symbol (perplexity {np.exp(rate):.2f}){how}"]
