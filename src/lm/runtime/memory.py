"""Keep freed memory in the process, so that every step does not fault the same pages in again.

A training step frees and asks for the same buffers each time. glibc gives what is free at the end
of its heap back to the system as soon as it is twice the largest buffer, at most 64 MiB.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt's parameters (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The largest buffer that comes from the heap at all; glibc takes no higher value, and its own
# choice ends here.
_LARGEST_BUFFER = 32 << 20
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """From now on the heap does not shrink; whether the C library knows how.

    Buffers above 32 MiB still come from the system and go back to it: from the heap they would
    fragment it.
    """
    return _mallopt({_MMAP_THRESHOLD: _LARGEST_BUFFER, _TRIM_THRESHOLD: _NEVER})


@contextmanager
def system_allocation() -> Iterator[None]:
    """glibc's own behaviour inside, as a process that ran for a while has it; for comparisons."""
    _mallopt({_MMAP_THRESHOLD: _LARGEST_BUFFER, _TRIM_THRESHOLD: 2 * _LARGEST_BUFFER})
    try:
        yield
    finally:
        keep_freed_memory()


def _mallopt(settings: dict[int, int]) -> bool:
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    accepted = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(accepted)
