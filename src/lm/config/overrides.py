r"""Command-line overrides as text: their keys, and free text that Hydra's grammar must not read.

Hydra's grammar gives commas, brackets, quotes and more a meaning, and OmegaConf's gives one to
`${`. In a field that holds free text they are text, so such values are quoted first.
"""

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.types import Quote, QuotedString

from lm.config.fields import PATH_FIELDS, TEXT_FIELDS

_OVERRIDE = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)
_OPENING = re.compile(r"(\\*)\$\{(?P<environment>oc\.env:)?")
_SWEEP = re.compile(r"(choice|glob)\(.*\)", re.DOTALL)
# An item of a list: quoted, or up to the next comma.
_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,]*?))\s*(?:,|$)""", re.DOTALL
)
_REQUIRED = frozenset({"checkpoint", "name", "path", "prompt", "run", "runs", "vocabulary"})
_OPEN_MAPPINGS = ("lr_scales",)


def key_of(override: str) -> str:
    """`model.bias` of `+model.bias=3`, `model` of `model@other=lstm` and of `~model`."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def is_override(argument: str) -> bool:
    """`key=value`, rather than a positional argument."""
    return _OVERRIDE.fullmatch(argument) is not None


def command_line(verb: str, overrides: Sequence[str]) -> str:
    """The command with these overrides, as a shell takes it."""
    return shlex.join(["lm", verb, *overrides])


def quote(text: str) -> str:
    """`text` as a quoted string of Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def free_text(text: str) -> str:
    """`text` such that Hydra and OmegaConf give it back unchanged."""
    return quote(_literal(text, keep_environment=False))


def prepare(override: str, *, lists: frozenset[str] = frozenset(), sweep: bool = False) -> str:
    """The override with free text quoted, and new keys allowed where a mapping is open.

    Args:
        lists: the verb's path fields that hold several: `[a,b]`, `['a, b',c]`.
        sweep: under `--multirun` `choice(…)` and `glob(…)` stay sweeps, over free text too.
    """
    match = _OVERRIDE.fullmatch(override)
    if not match:
        return override
    prefix, key, value = match.groups()
    if key.partition(".")[0] in _OPEN_MAPPINGS:
        return f"++{key}={value}"
    if key in TEXT_FIELDS or key == "name":
        return f"{prefix}{key}={_free(value, key, sweep, keep_environment=False)}"
    if key in lists:
        return f"{prefix}{key}={_free_list(value, sweep)}"
    if key in PATH_FIELDS:
        return f"{prefix}{key}={_free(value, key, sweep, keep_environment=True)}"
    return override


def _free_list(value: str, sweep: bool) -> str:
    """One path, or several in brackets, as a list of quoted paths."""
    if value == "null" or (sweep and _SWEEP.fullmatch(value)):
        return value
    items = _items(value[1:-1]) if value[:1] == "[" and value[-1:] == "]" else [value]
    return "[" + ",".join(quote(_literal(item, keep_environment=True)) for item in items) + "]"


def _items(text: str) -> list[str]:
    """What stands between the commas of a list; a comma in quotes is part of the item."""
    items = []
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:  # something after a closing quote: the user's own text, then
            return [text]
        single, double, plain = match.groups()
        if plain is None:
            quoted, mark = (single, "'") if single is not None else (double, '"')
            plain = quoted.replace(f"\\{mark}", mark)
        items.append(plain)
        position = match.end()
    return items


def _free(value: str, key: str, sweep: bool, *, keep_environment: bool) -> str:
    if (value == "null" and key not in _REQUIRED) or (sweep and _SWEEP.fullmatch(value)):
        return value
    return quote(_literal(value, keep_environment=keep_environment))


def _literal(text: str, *, keep_environment: bool) -> str:
    r"""`text` as OmegaConf has to be given it: `\${` for `${`, backslashes before it doubled."""

    def escape(opening: re.Match[str]) -> str:
        if keep_environment and opening["environment"]:
            return f"{opening[1] * 2}${{oc.env:"
        return rf"{opening[1] * 2}\${{{opening['environment'] or ''}"

    return _OPENING.sub(escape, text)
