"""Names that no field has, and the nearest that one has."""

import difflib
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig, OmegaConf

from lm.config.fields import flatten, plain
from lm.config.registry import BASES, schema_named, schema_names
from lm.config.roots import ROOTS
from lm.config.roots.training import TrainConfig
from lm.errors import ConfigError


def nearest(word: str, options: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The option most like `word`, if any is."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)
    return close[0] if close else None


def unknown_field(name: str, root: str) -> ConfigError:
    """The error of a name that no chosen schema has; another option of its group may have it."""
    group, _, field = name.partition(".")
    owners = [option for option in schema_names(group) if field in _names_in(group, option)]
    if owners:
        return ConfigError(
            f"unknown field {name} of the chosen {group}",
            f"It belongs to {group}={'|'.join(owners)}.",
        )
    close = _nearest_field(name, _names_of(root))
    hint = f"; nearest: {close}" if close else ""
    return ConfigError(f"unknown field {name}{hint}", f"`lm {root} --help` shows every field.")


def _nearest_field(name: str, known: Sequence[str]) -> str | None:
    """A like name beside it, else one like it anywhere."""
    parent, _, leaf = name.rpartition(".")
    known = [option for option in known if not name.startswith(f"{option}.")]
    siblings = {n.rpartition(".")[2]: n for n in known if n.rpartition(".")[0] == parent}
    everywhere = {n.rpartition(".")[2]: n for n in reversed(known)}
    for names, cutoff in ((siblings, 0.5), (everywhere, 0.75)):
        close = nearest(leaf, names, cutoff)
        if close:
            return names[close]
    return nearest(name, known, 0.75)


def _names_of(root: str) -> list[str]:
    """Every dotted name that a verb's configuration can have, whatever options are chosen."""
    schema = ROOTS.get(root, TrainConfig)
    names = _names(OmegaConf.structured(schema))
    for group in (group for group in BASES if group in names):
        for option in schema_names(group):
            names += [f"{group}.{name}" for name in _names_in(group, option)]
    return list(dict.fromkeys(names))


def _names_in(group: str, option: str) -> list[str]:
    return _names(OmegaConf.structured(schema_named(group, option)))


def _names(config: DictConfig) -> list[str]:
    """The dotted names of all nodes, not of leaves alone."""
    parts = [name.split(".") for name in flatten(plain(config))]
    return [".".join(path[:end]) for path in parts for end in range(1, len(path) + 1)]
