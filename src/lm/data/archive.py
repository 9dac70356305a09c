"""Unpacking zip archives that a stranger may have made, within limits."""

import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from lm.errors import DataError
from lm.runtime.files import folder_atomically, restore_interrupted, storage_errors
from lm.runtime.lock import exclusive

MAX_BYTES = 1 << 30
MAX_MEMBERS = 1000
MAX_NAME = 200
# Text shrinks three- to fivefold, a bomb a thousandfold.
MAX_RATIO = 100
REMEDY = "Get the archive from its publisher again."


def unpacked(cache: Path, name: str, sha256: str, obtain: Callable[[Path], Path]) -> Path:
    """The cache's folder with an archive's files, obtained and extracted where it is missing.

    Args:
        name: short name of the data set, for the folder's name.
        sha256: of the archive, for the folder's name too, so that nothing there is ever stale.
        obtain: gives the archive: one that lies elsewhere, or one that it brings to the path it
            is given, which is removed once its files are extracted.

    Raises:
        DataError: the archive cannot be obtained or is refused.
        StorageError: the cache cannot be written.
    """
    home = cache / "sources" / f"{name}-{sha256[:16]}"
    folder = home / "files"
    if not folder.is_dir():
        with exclusive(folder):
            restore_interrupted(home)
            if not folder.is_dir():
                fetched = home / f"{name}.zip"
                extract(obtain(fetched), folder)
                fetched.unlink(missing_ok=True)
    return folder


def extract(archive: Path, folder: Path) -> None:
    """Extract a zip to `folder`, which appears complete or not at all.

    Raises:
        DataError: damaged, encrypted, or beyond the limits; a member with an absolute name, `..`,
            a link or a name used twice.
        StorageError: the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            _check(archive, members)
            with storage_errors(f"unpack into {folder}"), folder_atomically(folder) as partial:
                for member in members:
                    _write(file, member, partial / member.filename)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"cannot unpack {archive}: {error}", REMEDY) from error


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Copy one member; it never yields more than the size it states, which `_check` added up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out, file.open(member) as source:
        while chunk := source.read(1 << 20):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(member.file_size for member in members)
    packed = archive.stat().st_size  # of the file itself: sizes stated inside may lie
    fault = next(filter(None, map(_fault, members)), "")
    names = {member.filename for member in members}
    above = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    if not fault and (len(names) < len(members) or names & above):
        fault = "two members have one name"
    elif not fault and len(members) > MAX_MEMBERS:
        fault = f"{len(members):,} members, at most {MAX_MEMBERS:,} are allowed"
    elif not fault and total > MAX_BYTES:
        fault = f"{total:,} bytes unpacked, at most {MAX_BYTES:,} are allowed"
    elif not fault and total > MAX_RATIO * packed:
        fault = f"{packed:,} bytes unpack to {total:,}, more than {MAX_RATIO} times as many"
    if fault:
        raise DataError(f"{archive} refused: {fault}", REMEDY)


def _fault(member: zipfile.ZipInfo) -> str:
    """Why a member must not be written, or nothing."""
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or {"\\", ":"} & set(member.filename):
        return f"member {member.filename!r} leaves the folder"
    if max(map(len, (member.filename, *path.parts))) > MAX_NAME:
        shown = f"{member.filename[:20]!r} …"
        return f"member {shown} has a name of {len(member.filename):,} characters"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return f"member {member.filename!r} is a link or another special file"
    if member.flag_bits & 0x1:
        return f"member {member.filename!r} is encrypted"
    return ""
