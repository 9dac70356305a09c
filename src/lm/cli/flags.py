"""A verb's command line: Hydra's flags, and overrides with what a shell leaves out put back."""

import contextlib
import io
from argparse import Namespace
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser

from lm import config
from lm.cli import VERBS
from lm.cli.rows import with_recipe
from lm.errors import ConfigError

LISTED = {"compare": "runs", "inspect": "run"}
"""Verb → the field that takes its positional arguments, one or several runs."""


def read_flags(verb: str, arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Hydra's flags as parsed, overrides prepared, and the flags as given."""
    given = list(arguments)
    positional = given and not given[0].startswith("-") and not config.is_override(given[0])
    if verb == "import" and positional:
        given[0] = f"path={given[0]}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            flags = get_args_parser().parse_intermixed_args(given)
    except SystemExit as exit_:
        if not exit_.code:
            raise
        fault = said.getvalue().rpartition("error: ")[2].strip()
        raise ConfigError(fault, f"`lm {verb} --help` shows the flags.") from None
    if flags.experimental_rerun:
        raise ConfigError("--experimental-rerun runs a pickle", "Use resume=<run directory>.")
    if runs_jobs(flags) and (flags.resolve or flags.package):
        raise ConfigError("--resolve and --package say how --cfg prints", "Add --cfg job.")
    if flags.config_path:
        raise ConfigError("--config-path hides lm's own files", "Use --config-dir=<folder>.")
    rest = list(given)
    for override in flags.overrides:
        rest.remove(override)
    if verb == "reproduce":
        flags.overrides = with_recipe(flags.overrides, needed=runs_jobs(flags))
        if flags.multirun:
            raise ConfigError("lm reproduce runs one row, once", "Call it for each without -m.")
    places: list[str] = []
    listed = LISTED.get(verb)
    if listed is not None:
        places, flags.overrides = _places(flags.overrides, listed)
        if flags.multirun:
            raise ConfigError(
                f"lm {verb} shows runs side by side, once", "Drop -m; give it all the runs."
            )
    lists, searches = config.path_lists(config.ROOTS[verb]), verb == "sweep"
    if searches and flags.multirun:
        raise ConfigError("lm sweep makes its own runs", "Drop -m; several values are a choice.")
    flags.overrides = [
        config.prepare(text, lists=lists, sweep=flags.multirun or searches)
        for text in flags.overrides
    ]
    if searches:
        flags.overrides = [config.searched(text) for text in flags.overrides]
    if places:
        flags.overrides.append(f"{listed}={config.path_list(places)}")
    if flags.help:
        flags.overrides.append(f"hydra.help.header={config.free_text(f'lm {verb}: {VERBS[verb]}')}")
    return flags, rest


def _places(arguments: Sequence[str], field: str) -> tuple[list[str], list[str]]:
    """The runs of `lm compare a b runs=[c,d]`, which is all that is no override, and the rest."""
    places, overrides = [], []
    for argument in arguments:
        if not config.is_override(argument):
            places.append(argument)
        elif config.key_of(argument) == field:
            places += config.path_items(argument.partition("=")[2])
        else:
            overrides.append(argument)
    return places, overrides


def runs_jobs(flags: Namespace) -> bool:
    """The command line asks for jobs, not for a look at something."""
    looks = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion)
    return not any(looks)
