"""The fenced blocks of a page, and what is done with each: docs/README.md states the convention.

```sh                       run by bash, in the page's working folder
```sh exit=2                the same, for a command that has to fail with this code
```console                  `$ command` lines are run; the lines below them are among its output
```python                   run as a program; it has to be complete
```python file=my_cell.py   kept in the page's working folder under this name (yaml and text too)
```sh composed              each `lm` line is composed and checked, not run: it names what is yours
```sh clone                 run in a clone of its own, before anything is installed
```sh skip="an hour"        shown only, for the reason given
```text                     shown only, as are json, yaml and toml
"""

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_COMMANDS = ("sh", "console")
_ATTRIBUTES = {
    "sh": {"skip", "exit", "composed", "clone"},
    "console": {"skip", "exit"},
    "python": {"skip", "file"},
    "text": {"file"},
    "yaml": {"file"},
    "json": {"file"},
    "toml": {"file"},
}
"""Language → what may stand behind it."""


class PageError(Exception):
    """A block that is not written as it has to be; says where."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its opening fence, from 1.
        skip: why it is not run; None where it is.
        exit: the code that its last command has to end with.
        file: the name that its text is kept under, instead of being run.
        composed: its commands are composed and checked only.
        clone: it is run in a clone that nothing was installed in.
    """

    page: Path
    line: int
    language: str
    text: str
    skip: str | None = None
    exit: int = 0
    file: str | None = None
    composed: bool = False
    clone: bool = False

    @property
    def runs(self) -> bool:
        """Whether there is something to run in it."""
        program = self.language == "python" and self.file is None
        return self.skip is None and (program or self.language in _COMMANDS)

    @property
    def place(self) -> str:
        """Where it is, as compilers say it."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a `console` block, and the lines of its output that the page shows."""

    text: str
    output: tuple[str, ...]

    def missing_from(self, output: str) -> str | None:
        """The first of its lines that does not follow the others in `output`; `…` is anything."""
        said = iter(output.splitlines())
        for line in self.output:
            if line.strip() == "…":
                continue
            wanted = re.compile(".*".join(map(re.escape, line.rstrip().split("…"))))
            if not any(wanted.fullmatch(other.rstrip()) for other in said):
                return line
        return None


def blocks_of(page: Path, name: Path | None = None) -> list[Block]:
    """The blocks of a page, in order.

    Args:
        name: what it is called in messages.

    Raises:
        PageError: a block is unmarked, not closed, of an unknown kind or no complete program.
    """
    return list(_read(page.read_text(encoding="utf-8").splitlines(), name or page))


def _read(lines: list[str], page: Path) -> Iterator[Block]:
    opening: re.Match[str] | None = None
    begun = 0
    for number, line in enumerate(lines, start=1):
        if opening is None:
            opening, begun = _FENCE.fullmatch(line), number
        elif re.fullmatch(rf" *{opening['fence']}{opening['fence'][0]}*\s*", line):
            text = textwrap.dedent("\n".join(lines[begun : number - 1])) + "\n"
            yield _block(page, begun, opening["info"], text)
            opening = None
    if opening is not None:
        raise PageError(f"{page}:{begun}: the block is not closed")


def _block(page: Path, line: int, info: str, text: str) -> Block:
    place = f"{page}:{line}"
    language, *attributes = shlex.split(info) or [""]
    if language not in _ATTRIBUTES:
        known = ", ".join(_ATTRIBUTES)
        raise PageError(f"{place}: a block has to say what it is ({known}), got {language!r}")
    given = dict(attribute.partition("=")[::2] for attribute in attributes)
    if unknown := given.keys() - _ATTRIBUTES[language]:
        raise PageError(f"{place}: {language} takes no {', '.join(sorted(unknown))}")
    if not given.get("exit", "0").isdigit():
        raise PageError(f"{place}: exit has to be a number, got {given['exit']!r}")
    if Path(given.get("file", "")).is_absolute() or ".." in Path(given.get("file", "")).parts:
        raise PageError(f"{place}: file has to lie in the page's folder, got {given['file']!r}")
    if language == "python":
        _check_program(place, text)
    code = int(given.get("exit", 0))
    block = Block(
        page,
        line,
        language,
        text,
        skip=given.get("skip"),
        exit=code,
        file=given.get("file"),
        composed="composed" in given,
        clone="clone" in given,
    )
    if language == "console":
        commands_of(block)
    return block


def _check_program(place: str, text: str) -> None:
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise PageError(f"{place}: no complete program: {error.msg}, line {error.lineno}") from None


def _composed(line: str) -> str:
    """A command that stops once its configuration is known to be right."""
    command = re.sub(r"\s+#.*", "", line)
    if " -m " in command:  # of a sweep the first job
        command = re.sub(r"=([^\s,\[\]']+),\S+", r"=\1", command.replace(" -m ", " "))
    looks = "--list" in command or "--cfg" in command
    return command if looks else f"{command} --cfg job"


def commands_of(block: Block) -> list[Command]:
    """The commands of a `console` block with their output; of others, all of it as one.

    Raises:
        PageError: it does not begin with `$ `.
    """
    if block.composed:
        return [Command(_composed(line), ()) for line in block.text.splitlines()]
    if block.language != "console":
        return [Command(block.text, ())]
    found: list[Command] = []
    continued = False
    for line in block.text.splitlines():
        if continued:
            found[-1] = Command(f"{found[-1].text}\n{line}", ())
        elif line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), ()))
        elif not found:
            raise PageError(f"{block.place}: a console block begins with `$ <command>`")
        else:
            found[-1] = Command(found[-1].text, (*found[-1].output, line))
        continued = not found[-1].output and line.endswith("\\")
    return found
