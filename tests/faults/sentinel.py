"""What a process does that data should not make it do: code run, processes begun, sockets opened.

Python tells an audit hook of each such thing, whichever function did it. A hook cannot be removed,
so there is one, with a switch.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXECUTING = frozenset(
    {
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
        "os.startfile", "subprocess.Popen", "pickle.find_class", "marshal.loads", "marshal.load",
        "compile", "exec", "code.__new__", "ctypes.dlopen", "import",
    }
)  # fmt: skip
LISTENING = frozenset({"socket.bind", "socket.connect", "socket.getaddrinfo"})
# `lm train` asks git for the commit of its own checkout.
_OUR_PROCESSES = ("git",)

_wanted: frozenset[str] = frozenset()
_seen: list[str] = []
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _wanted or _is_ours(event, arguments):
        return
    _seen.append(f"{event}{tuple(map(str, arguments[:2]))}"[:200])


def _is_ours(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "import":  # looked for again after it was not there
        return arguments[0] in sys.modules
    return event == "subprocess.Popen" and Path(str(arguments[0])).name in _OUR_PROCESSES


@contextmanager
def watching(events: frozenset[str]) -> Iterator[list[str]]:
    """Give the list that takes what happens inside; warm up first, so that imports are done."""
    global _wanted, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _seen.clear()
    _wanted = events
    try:
        yield _seen
    finally:
        _wanted = frozenset()
