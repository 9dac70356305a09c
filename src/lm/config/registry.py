"""Components by group and name: the built-in ones and those of plugins.

A schema is stored in Hydra's ConfigStore under `schema/<group>/<name>`, a group of its own, so
that it does not show up as a choice; the YAML option `<group>/<name>` picks it in its defaults
list. Saved configurations look their schemas up here and nowhere else: nothing in a file can name
code to import.
"""

import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.config.roots import ROOTS
from lm.data.corpus import DataConfig
from lm.data.sources import SOURCES
from lm.data.tokenizers import TOKENIZERS, TokenizerConfig
from lm.errors import ConfigError, LmError
from lm.models import MODELS, ModelConfig
from lm.optim.base import OptimConfig
from lm.optim.optimizers import OPTIMIZERS
from lm.optim.schedule_base import ScheduleConfig
from lm.optim.schedules import SCHEDULES
from lm.runtime.device import RuntimeConfig
from lm.training import TrainerConfig

BASES: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "trainer": TrainerConfig,
    "runtime": RuntimeConfig,
}
"""Group → the class that each of its schemas derives from."""

OVERLAYS = ("experiment", "debug", "sweep", "local")
"""Groups whose options set fields anywhere."""

_schemas: dict[str, dict[str, type]] = {group: {} for group in BASES}
_loaded: set[str] = set()


def register(group: str, name: str, schema: type) -> None:
    """Make `group=name` choose `schema`, a config dataclass of your own with its `build`.

    Call it from a module that `LM_PLUGINS` names, or from an `lm.plugins` entry point. Running
    the same definition again, as a notebook does, replaces it.

    Args:
        schema: `@dataclass(kw_only=True, slots=True)`, derived from the group's base class.

    Raises:
        ConfigError: unknown group, name already taken, or a class that is not such a dataclass.
    """
    _store(group, name, schema)
    # The option itself, so that `model=mycell` needs no YAML.
    ConfigStore.instance().store(group=group, name=name, node=schema, provider="lm plugin")


def schema_named(group: str, name: str) -> type | None:
    """The schema registered as `name`, or None."""
    return _schemas.get(group, {}).get(name)


def name_of(group: str, schema: type | None) -> str:
    """The name that `schema` is registered under."""
    return next(name for name, known in _schemas[group].items() if known is schema)


def schema_names(group: str) -> list[str]:
    """The registered names of a group."""
    return sorted(_schemas.get(group, {}))


def load_plugins() -> None:
    """Import the modules named in `LM_PLUGINS` and the `lm.plugins` entry points, once each.

    Raises:
        ConfigError: one of them fails to import or to register.
    """
    for origin, name in _plugins():
        if name in _loaded:
            continue
        try:
            importlib.import_module(name)  # noqa: TID251 (the user named it)
        except LmError:
            raise
        except Exception as error:  # a plugin's module may raise anything
            raise ConfigError(
                f"cannot import the plugin {name} named by {origin}: "
                f"{type(error).__name__}: {error}",
                f"Mend the module, or take it out of {origin}.",
            ) from error
        _loaded.add(name)


def _plugins() -> Iterator[tuple[str, str]]:
    named = [name.strip() for name in os.environ.get("LM_PLUGINS", "").split(",") if name.strip()]
    here = str(Path.cwd())
    if named and here not in sys.path:
        # Last, so that it can shadow nothing: a console script does not search the folder it
        # is called in, and that is where one's own cell lies.
        sys.path.append(here)
    yield from (("LM_PLUGINS", name) for name in named)
    yield from (("an lm.plugins entry point", e.module) for e in entry_points(group="lm.plugins"))


def _store(group: str, name: str, schema: type) -> None:
    _check_schema(group, name, schema)
    _schemas[group][name] = schema
    ConfigStore.instance().store(group=f"schema/{group}", name=name, node=schema, provider="lm")


def _check_schema(group: str, name: str, schema: type) -> None:
    if group not in BASES:
        raise ConfigError(f"no group {group!r} to register in", f"Groups: {', '.join(BASES)}.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"a component's name is lower-case letters, digits and _, got {name!r}",
            "Choose another name.",
        )
    taken = _schemas[group].get(name)
    if taken is not None and _origin(taken) != _origin(schema):
        raise ConfigError(
            f"{group}={name} is taken by {'.'.join(_origin(taken))}", "Choose another name."
        )
    fault = _fault(schema, BASES[group])
    if fault:
        raise ConfigError(
            f"the schema of {group}={name} {fault}",
            f"Write @dataclass(kw_only=True, slots=True) class "
            f"{getattr(schema, '__name__', 'MyConfig')}({BASES[group].__name__}).",
        )


def _fault(schema: type, base: type) -> str | None:
    """Why `schema` cannot be one of `base`'s group, or None."""
    if not (isinstance(schema, type) and issubclass(schema, base)):
        return f"does not derive from {base.__name__}"
    if "__dataclass_fields__" not in vars(schema) and schema is not base:
        return "is not a dataclass"
    if any("__dict__" in vars(parent) for parent in schema.__mro__):
        return "has no slots, so that a mistyped field would pass"
    if not all(part.kw_only for part in dataclasses.fields(cast(Any, schema))):
        return "takes positional arguments"
    try:
        OmegaConf.structured(schema)
    except OmegaConfBaseException as error:
        return f"has a field that cannot be configured: {str(error).splitlines()[0]}"
    return None


def _origin(schema: type) -> tuple[str, str]:
    return schema.__module__, schema.__qualname__


def _register_built_in() -> None:
    built_in: dict[str, dict[str, type]] = {
        "model": dict(MODELS),
        "data": dict(SOURCES),
        "tokenizer": dict(TOKENIZERS),
        "optim": dict(OPTIMIZERS),
        "schedule": dict(SCHEDULES),
        "trainer": {"default": TrainerConfig},
        "runtime": {"default": RuntimeConfig},
    }
    for group, schemas in built_in.items():
        for name, schema in schemas.items():
            _store(group, name, schema)
    for verb, root in ROOTS.items():
        ConfigStore.instance().store(group="schema/root", name=verb, node=root, provider="lm")
    # Hydra copies the whole store, schema by schema, before each of its 140 looks for a verb's
    # help, and before each composition; it copies again what it then takes out.
    setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010


_register_built_in()
