"""Memory that the processes of one machine have in common, without a name in any folder.

It is an anonymous file (memfd, Linux), which the others open through /proc while its maker holds
it, so that nothing is left behind however they end.
"""

import mmap
import os
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lm.runtime.processes import Processes


def shared_rows(processes: Processes, length: int) -> Float[Tensor, "P N"] | None:
    """A row of zeros for each process, which all of them read and write.

    None on all of them where one cannot have it: on another machine or in another container, on
    another system than Linux, or where the memory is not there.

    Args:
        length: elements of a row.
    """
    if not processes.one_machine:
        return None
    num_bytes = processes.size * length * torch.float32.itemsize
    made = _Anonymous.make(num_bytes) if processes.first else None
    try:
        address = processes.hear_first("" if made is None else made.address)
        mapped = _mapped(address, num_bytes)
        if processes.largest([float(mapped is None)]) != [0.0]:
            return None
    finally:
        if made is not None:
            made.close()
    assert mapped is not None
    return torch.frombuffer(mapped, dtype=torch.float32).view(processes.size, length)


class _Anonymous:
    """An anonymous file, as long as it is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def make(cls, num_bytes: int) -> "_Anonymous | None":
        """One whose memory is set aside at once: later the lack of it would be a signal."""
        if not hasattr(os, "memfd_create"):
            return None
        try:
            made = cls(os.memfd_create("lm"))
        except OSError:
            return None
        try:
            os.posix_fallocate(made._descriptor, 0, num_bytes)
        except OSError:
            made.close()
            return None
        return made

    @property
    def address(self) -> str:
        """Where others find it: which view of which machine, and what path; empty for nowhere."""
        try:
            return f"{_where()} /proc/{os.getpid()}/fd/{self._descriptor}"
        except OSError:
            return ""

    def close(self) -> None:
        """Whoever has mapped it keeps it."""
        os.close(self._descriptor)


def _mapped(address: str, num_bytes: int) -> mmap.mmap | None:
    where, _, path = address.rpartition(" ")
    try:
        if not path or where != _where():
            return None  # there is none, or the same path is something else here
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(descriptor, num_bytes)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _where() -> str:
    """The same for processes that see each other in /proc: of one start of a machine, one view.

    Raises:
        OSError: this machine does not say.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
