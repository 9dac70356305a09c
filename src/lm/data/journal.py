"""What is left of a store whose writing was interrupted: finished shards, and how to go on.

A line of JSON for each shard, on the disk before the next one is begun. A line that was torn, or a
shard that is not what its line says, ends what is believed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm.data.counts import Place, TextCounts
from lm.data.store_header import File, shard_name
from lm.runtime.files import sync, write_atomically

JOURNAL = "journal.jsonl"
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Entry:
    """What was written when a shard was full.

    Attributes:
        shard: the one.
        place: of the text that the shard ends in, before the block with its last token.
        units: what was written of the units then.
        max_id: of all tokens so far.
    """

    shard: File
    place: Place
    units: File | None
    max_id: int

    def write(self) -> str:
        """As a line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> "Entry":
        """The inverse of `write`.

        Raises:
            ValueError, TypeError, KeyError: it is not whole.
        """
        data: dict[str, Any] = json.loads(line)
        place, units = data["place"], data["units"]
        counts = TextCounts(**place.pop("counts"))
        return cls(
            File(**data["shard"]),
            Place(**place, counts=counts),
            None if units is None else File(**units),
            int(data["max_id"]),
        )


def begin(folder: Path, entries: Sequence[Entry]) -> None:
    """Begin the journal anew with what is believed."""
    write_atomically(folder / JOURNAL, "".join(map(Entry.write, entries)).encode())


def append(folder: Path, entry: Entry) -> None:
    """Write an entry for a shard that is on the disk already."""
    path = folder / JOURNAL
    with path.open("a", encoding="utf-8") as file:
        file.write(entry.write())
    sync(path)
    sync(folder)


def finished(folder: Path, shard_tokens: int, width: int) -> list[Entry]:
    """The entries of a folder as far as its files agree with them.

    Args:
        width: bytes of a token.
    """
    found: list[Entry] = []
    try:
        for index, line in enumerate((folder / JOURNAL).read_text(encoding="utf-8").splitlines()):
            entry = Entry.read(line)
            whole = File(name=shard_name(index), items=shard_tokens, sha256=entry.shard.sha256)
            if entry.shard != whole or not _agrees(folder, whole, width):
                break
            found.append(entry)
        while found and (units := found[-1].units) is not None and not _agrees(folder, units, 8):
            found.pop()
    except (OSError, ValueError, TypeError, KeyError):
        return found if all(entry.units is None for entry in found) else []
    return found


def _agrees(folder: Path, file: File, width: int) -> bool:
    """Whether a file begins with what is said of it."""
    digest, left = hashlib.sha256(), file.items * width
    with (folder / file.name).open("rb") as opened:
        while left and (chunk := opened.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
    return not left and digest.hexdigest() == file.sha256
