"""What `lm reproduce` takes besides overrides: the name of a row, or `--list`; without torch."""

import re
from collections.abc import Sequence
from pathlib import Path

from lm.errors import ConfigError
from lm.reproduction.overview import overview
from lm.reproduction.registry import find


def with_recipe(arguments: Sequence[str], *, needed: bool) -> list[str]:
    """The overrides, the row's recipe in front of them in place of its name.

    Args:
        needed: without a name there is nothing to run; to show help there is.

    Raises:
        ConfigError: there is no name, or no row of that name.
    """
    name = next((text for text in arguments if re.fullmatch(r"[\w-]+", text)), None)
    if name is None:
        if needed:
            raise ConfigError(
                "lm reproduce needs the name of a published result",
                "lm reproduce NAME [field=value] …; `lm reproduce --list` shows the names.",
            )
        return list(arguments)
    row, given = find(name), list(arguments)
    given.remove(name)
    # A row may have several stages; the others are put together when the first is done.
    return [*row.stages[0].arguments(row.name), f"row={row.name}", *given]


def listing(arguments: Sequence[str]) -> str:
    """The table of all rows, with records below `runs=FOLDER`.

    Raises:
        ConfigError: another argument.
    """
    runs = "runs"
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "runs" and value:
            runs = value
        elif argument != "--list":
            raise ConfigError(
                f"lm reproduce --list takes no {argument!r}", "Only runs=FOLDER may stand there."
            )
    return overview(Path(runs))
