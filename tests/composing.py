"""Hydra takes 0.1 s to compose a configuration, and the tests ask for a thousand of them.

What was read and composed before is given again, as a copy, as long as it can be no other: of the
files of the checkout and of the schemas that are registered at that time. With a folder of a test's
own on the search path nothing is kept.
"""

from collections.abc import Iterator
from copy import copy, deepcopy
from functools import cache
from typing import Any

import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from lm.config import config_dir, registry


class Kept:
    """What was made of a search path and a set of schemas.

    Attributes:
        schemas: held, so that no other gets the number of one that is gone.
        files: what was read, by name.
        composed: what was composed, by the files that it was composed of.
    """

    def __init__(self, schemas: list[object]) -> None:
        self.schemas = schemas
        self.files: dict[str, Any] = {}
        self.composed: dict[str, DictConfig] = {}


_kept: dict[tuple[object, ...], Kept] = {}
_maps: dict[str, DictConfig] = {}


def _kept_of(sources: list[Any]) -> Kept | None:
    """None where a test's files are among them."""
    ours = str(config_dir())
    if any(source.scheme() == "file" and source.path != ours for source in sources):
        return None
    schemas = list(_leaves(ConfigStore.instance().repo))
    key = (*((source.provider, source.path) for source in sources), *map(id, schemas))
    return _kept.setdefault(key, Kept(schemas))


def _leaves(tree: dict[str, Any]) -> Iterator[object]:
    for value in tree.values():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield value


class Repository(CachingConfigRepository):
    """Reads a file of the checkout or a schema once in a process."""

    def __init__(self, delegate: Any) -> None:
        super().__init__(delegate)
        self._take_up()

    def initialize_sources(self, config_search_path: Any) -> None:
        super().initialize_sources(config_search_path)
        self._take_up()

    def _take_up(self) -> None:
        self.kept = _kept_of(self.get_sources())
        self.cache = {} if self.kept is None else self.kept.files


_compose = ConfigLoaderImpl._compose_config_from_defaults_list
_load = ConfigLoaderImpl._load_single_config
_map_choices = defaults_list._create_interpolation_map


def _composed(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> DictConfig:
    if repo.kept is None:
        return _compose(self, defaults, repo)
    known = repo.kept.composed
    if (key := repr(defaults)) not in known:
        known[key] = _compose(self, defaults, repo)
    return deepcopy(known[key])


def _loaded(self: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
    result = copy(_load(self, default, repo))
    result.config = deepcopy(result.config)  # composition changes it
    return result


def _mapped(overrides: Any, entries: Any, self_added: bool) -> DictConfig:
    key = repr((overrides.known_choices, [*map(vars, entries)], self_added))
    if key not in _maps:
        _maps[key] = _map_choices(overrides, entries, self_added)
    return _maps[key]  # which is only read


def install(patch: pytest.MonkeyPatch) -> None:
    """Let Hydra keep what it makes in this process."""
    patch.setattr(config_loader_impl, "CachingConfigRepository", Repository)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", _composed)
    patch.setattr(ConfigLoaderImpl, "_load_single_config", _loaded)
    patch.setattr(defaults_list, "_create_interpolation_map", _mapped)
    patch.setattr(registry, "entry_points", cache(registry.entry_points))


def forgo(patch: pytest.MonkeyPatch) -> None:
    """Let Hydra make all anew."""
    patch.setattr(config_loader_impl, "CachingConfigRepository", CachingConfigRepository)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", _compose)
    patch.setattr(ConfigLoaderImpl, "_load_single_config", _load)
    patch.setattr(defaults_list, "_create_interpolation_map", _map_choices)
