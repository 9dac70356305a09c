"""Where documentation is run: a clone with an environment of its own, a folder for each page."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

INSTALL = (
    "python -m venv .venv",
    '.venv/bin/python -m pip install -c constraints.txt -e ".[dev]"',
)
"""How README.md installs; a test holds it to these very lines."""

# What a command line may be told from outside and a reader has not set.
_UNSET = ("LM_PLUGINS", "LM_TRACEBACK", "PYTHONPATH", "VIRTUAL_ENV")


class InstallationError(Exception):
    """A step of the installation that failed."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a block's commands find.

    Attributes:
        programs: the folder of `python`, `lm` and the others.
        cache: the cache folder of `lm`.
        source: put before what is installed, to try pages without installing.
    """

    programs: Path
    cache: Path
    source: Path | None = None

    def variables(self) -> dict[str, str]:
        """The environment of a command."""
        kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
        path = f"{self.programs}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {"PATH": path, "LM_CACHE": str(self.cache), "COLUMNS": "100"}
        return {**kept, **own, **({"PYTHONPATH": str(self.source)} if self.source else {})}


def fresh(folder: Path) -> Environment:
    """A clone of the checkout's last commit, installed as README.md says.

    Raises:
        InstallationError: with what was said.
    """
    clone, first = cloned(folder / "lm", folder / "cache")
    for command in INSTALL:
        _do(["bash", "-c", command], clone, first)
    return Environment(clone / ".venv/bin", folder / "cache")


def cloned(place: Path, cache: Path) -> tuple[Path, Environment]:
    """A clone of the checkout's last commit, and what is there before anything is installed.

    Raises:
        InstallationError: with what git said.
    """
    bare = Environment(Path(sys.executable).parent, cache)
    _do(["git", "clone", "--quiet", str(ROOT), str(place)], ROOT, bare)
    return place, bare


def existing(programs: Path, folder: Path) -> Environment:
    """An environment that is there, with this checkout's source as it is now."""
    return Environment(programs, folder / "cache", ROOT / "src")


def _do(arguments: list[str], folder: Path, environment: Environment) -> None:
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InstallationError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
