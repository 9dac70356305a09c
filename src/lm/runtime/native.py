"""Our own C, compiled where it runs: for this CPU's instructions, by the system's compiler.

Compiled once into the cache folder, under a name that depends on everything that went in. Where
there is no compiler, all works without, more slowly. Nothing is loaded from a folder that another
user could write.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lm.errors import StorageError
from lm.runtime.files import default_cache, sync
from lm.runtime.lock import exclusive

log = logging.getLogger(__name__)

_FLAGS = (
    "-O3", "-march=native", "-fopenmp", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math",
    "-shared", "-fPIC",
)  # fmt: skip
_COMPILERS = ("cc", "gcc")
_SECONDS = 300


class Library:
    """Functions that take one structure of 64-bit numbers and pointers."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._loaded = loaded

    def __call__(self, name: str, numbers: Sequence[int], tensors: Sequence[Tensor | None]) -> None:
        """Call a function; its structure begins with the numbers, the pointers follow.

        Tensors have to be contiguous and on the CPU, None is a null pointer. Other Python threads
        run meanwhile.
        """
        values = [*numbers, *(0 if tensor is None else tensor.data_ptr() for tensor in tensors)]
        getattr(self._loaded, name)((ctypes.c_int64 * len(values))(*values))

    def number(self, name: str) -> int:
        """What a function without arguments returns."""
        return int(getattr(self._loaded, name)())


def compiled(main: Path, cache: Path | None = None) -> Library | None:
    """The library made of a C file and the headers beside it; None where that cannot be had.

    Args:
        main: the C file.
        cache: the folder to keep it in; None is that of all caches, which only the user's
            environment chooses: a YAML file or a checkpoint may name another, and what is loaded
            from the folder runs.
    """
    compiler = _compiler()
    if compiler is None:
        log.info("no C compiler (%s on Linux): slower kernels are used", " or ".join(_COMPILERS))
        return None
    try:
        folder = (cache or default_cache()) / "native"
        _only_ours(folder)
        target = folder / f"{_fingerprint(main, compiler)}.so"
        if not target.exists():
            with exclusive(target):
                if not target.exists():
                    _compile(main, compiler, target)
        return Library(ctypes.CDLL(str(target)))
    except (OSError, StorageError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        log.warning("%s could not be compiled, slower kernels are used: %s", _shown(main), detail)
        return None


def _shown(main: Path) -> str:
    return f"{main.parent.name}/{main.name}"


def _only_ours(folder: Path) -> None:
    """Make the folder; what is loaded from it runs as us.

    Raises:
        PermissionError: it is another's, or others may write it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is another user's, or others may write it")


def _compiler() -> str | None:
    if platform.system() != "Linux":  # elsewhere the usual compilers lack OpenMP
        return None
    candidates = [os.environ.get("CC", ""), *_COMPILERS]
    return next(filter(None, map(shutil.which, candidates)), None)


def _fingerprint(main: Path, compiler: str) -> str:
    """Of sources, compiler, options and CPU."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60)
    parts = [compiler.encode(), version.stdout, " ".join(_FLAGS).encode(), _instructions()]
    parts += [path.read_bytes() for path in sorted(main.parent.glob("*.[ch]"))]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return f"{main.stem}-{digest.hexdigest()}"


def _instructions() -> bytes:
    """What `-march=native` means here: a home folder may be shared by unlike machines."""
    listed = Path("/proc/cpuinfo")
    if not listed.exists():
        return platform.processor().encode() + platform.machine().encode()
    wanted = (b"model name", b"flags", b"Features", b"CPU part")
    first = listed.read_bytes().split(b"\n\n")[0].splitlines()
    return b"\n".join(line for line in first if line.startswith(wanted))


def _compile(main: Path, compiler: str, target: Path) -> None:
    """Elsewhere first, so that a half-written library is never loaded."""
    log.info("compiling %s for this CPU, once", _shown(main))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [compiler, *_FLAGS, str(main), "-o", str(made), "-lm"]
        subprocess.run(command, capture_output=True, check=True, text=True, timeout=_SECONDS)
        sync(made)
        made.replace(target)
