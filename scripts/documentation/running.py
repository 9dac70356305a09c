"""Running the blocks of a page, in order, in one folder."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from documentation.blocks import Block, blocks_of, commands_of
from documentation.environment import ROOT, Environment, cloned

PAGES = ("README.md", "docs/*.md", "docs/howto/*.md")
"""The pages whose blocks are run."""

_TIMEOUT = 900  # in seconds: a block that takes longer is not for a page
_SHOWN = 30


class BlockError(Exception):
    """A command of a page that did not do what the page says."""


@dataclass(frozen=True, slots=True)
class Done:
    """A block that was run, or passed over for the reason that it gives."""

    block: Block
    seconds: float


def pages() -> list[Path]:
    """The pages whose blocks are run, from the checkout's root."""
    found = (sorted(ROOT.glob(pattern)) for pattern in PAGES)
    return [page.relative_to(ROOT) for some in found for page in some]


def run_page(page: Path, folder: Path, environment: Environment) -> Iterator[Done]:
    """Do a page's blocks one after the other, in a folder that does not exist yet.

    Args:
        page: from the checkout's root.

    Raises:
        BlockError: a command ends with another code, says something else or takes too long.
    """
    folder.mkdir(parents=True)
    for block in blocks_of(ROOT / page, page):
        begun = time.perf_counter()
        if block.file is not None:
            place = folder / block.file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.text, encoding="utf-8")
        elif block.clone and block.runs:
            run_block(block, *cloned(folder / "clone", environment.cache))
        elif block.runs:
            run_block(block, folder, environment)
        if block.runs or block.skip is not None:
            yield Done(block, time.perf_counter() - begun)


def run_block(block: Block, folder: Path, environment: Environment) -> None:
    """Run a block's commands.

    Raises:
        BlockError: see `run_page`.
    """
    commands = commands_of(block)
    for command in commands:
        code, output = _run(block, command.text, folder, environment)
        expected = block.exit if command is commands[-1] else 0
        if code != expected:
            raise _failure(block, command.text, f"exit code {code} instead of {expected}", output)
        if (line := command.missing_from(output)) is not None:
            raise _failure(block, command.text, f"did not say {line!r}", output)


def _run(block: Block, text: str, folder: Path, environment: Environment) -> tuple[int, str]:
    shell = ["bash", "-euo", "pipefail", "-c", text]
    arguments = ["python", "-c", text] if block.language == "python" else shell
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env=environment.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace")
        raise _failure(block, text, f"longer than {_TIMEOUT} s", said) from None
    return done.returncode, done.stdout.decode(errors="replace")


def _failure(block: Block, command: str, what: str, output: str) -> BlockError:
    end = "\n".join(f"  | {line}" for line in output.splitlines()[-_SHOWN:])
    return BlockError(f"{block.place}: {what}\n{command.rstrip()}\n{end}")
