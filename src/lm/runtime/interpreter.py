"""Another process of this very program."""

import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules with this interpreter, and no file of the user's.

    A console script does not search the folder it is called in, where `-m` would find it first.
    """
    safe = [] if sys.path[0] in ("", str(Path.cwd())) else ["-P"]
    return [sys.executable, *safe, "-m", module, *arguments]
