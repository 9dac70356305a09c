"""Whether the files of a token store are what was written, found out in the background if large."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm.data.store_header import File, Header
from lm.errors import DataError

REMEDY = "Delete that folder; it is prepared again when needed."
_CHUNK_BYTES = 1 << 22  # whole ids of any width


class Verification:
    """Compares the files of a store with their hashes, and its ids with the vocabulary."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._header = header
        self._error: DataError | None = None
        self._thread = threading.Thread(target=self._run_aside, name="lm-verify", daemon=True)

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        header = self._header
        return sum((self._path / file.name).stat().st_size for file in header.all_files)

    def run(self) -> None:
        """Verify now.

        Raises:
            DataError: naming the first file that was altered.
        """
        for file in self._header.all_files:
            self._verify(file)

    def start(self) -> None:
        """Verify in the background."""
        self._thread.start()

    def check(self, ids: NDArray[np.int64]) -> None:
        """What has to hold of ids that are read before all of them are verified.

        Raises:
            DataError: one is outside the vocabulary, or an altered file was found meanwhile.
        """
        if self._error is not None:
            raise self._error
        self._check_range(int(ids.max(initial=0)))

    def settle(self) -> None:
        """Wait for the end.

        Raises:
            DataError: a file was altered.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run_aside(self) -> None:
        try:
            self.run()
        except DataError as error:
            self._error = error
        except OSError as error:
            self._error = DataError(f"token store {self._path} cannot be read: {error}", REMEDY)

    def _verify(self, file: File) -> None:
        digest, highest = hashlib.sha256(), 0
        # Not mapped: what is mapped would count as memory.
        with (self._path / file.name).open("rb") as opened:
            while chunk := opened.read(_CHUNK_BYTES):
                digest.update(chunk)
                if file in self._header.shards:
                    ids: NDArray[Any] = np.frombuffer(chunk, self._header.dtype)
                    highest = max(highest, int(ids.max()))
        if digest.hexdigest() != file.sha256:
            raise DataError(f"{self._path / file.name} is damaged: its hash differs", REMEDY)
        self._check_range(highest)

    def _check_range(self, highest: int) -> None:
        # A header may agree with its files and still not say what is in them.
        if highest >= self._header.vocab_size:
            raise DataError(
                f"token store {self._path} has id {highest}, the vocabulary ends at"
                f" {self._header.vocab_size - 1}",
                REMEDY,
            )
