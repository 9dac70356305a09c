"""YAML files and overrides to one configuration, by Hydra's composition without Hydra's `main`."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, SearchPathException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

import lm
from lm.config.explain import explain
from lm.config.hydra_part import check_hydra
from lm.config.overrides import quote
from lm.config.registry import load_plugins
from lm.config.unknown import unknown_field
from lm.errors import ConfigError, LmError

VERSION_BASE = "1.3"


def config_dir() -> Path:
    """The folder of the YAML files: `lm/configs` where installed, `configs/` in a checkout."""
    package = Path(lm.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def compose(
    root: str, overrides: Sequence[str] = (), *, extra_dir: str | None = None
) -> DictConfig:
    """The configuration of one job, unresolved.

    Args:
        root: a root file, by its name without `.yaml`; the verbs have one each.
        overrides: in Hydra's grammar.
        extra_dir: one more folder to look for YAML files in.

    Raises:
        ConfigError: naming the override or field at fault, and the nearest that exists.
    """
    load_plugins()
    with explained(root, overrides):
        config = _load(root, overrides, extra_dir, RunMode.RUN)
        return _checked(config, root)


class Composed(ConfigLoaderImpl):
    """For Hydra, which composes a run twice, 0.1 s each time: what was composed before."""

    def __init__(self, config: DictConfig, extra_dir: str | None) -> None:
        super().__init__(_search_path(extra_dir))
        self._config = config

    def load_configuration(self, *_: Any, **__: Any) -> DictConfig:
        return copy.deepcopy(self._config)  # hydra.verbose composes more than once, and changes it


def compose_jobs(
    root: str, overrides: Sequence[str], extra_dir: str | None = None, *, sweep: bool
) -> tuple[list[DictConfig], Composed | None]:
    """The configuration of every job that a command line asks for, and of a single one Hydra's.

    The jobs of another sweeper than Hydra's basic one are not known beforehand: what they share
    is composed instead.

    Args:
        sweep: `--multirun`; a configuration may also ask for it by `hydra.mode`.

    Returns:
        The jobs, and None if they are a sweep's.

    Raises:
        ConfigError: as `compose`, for the first job at fault.
    """
    load_plugins()
    asked = sweep or "hydra.mode=MULTIRUN" in overrides
    with explained(root, overrides):
        common = _load(root, overrides, extra_dir, RunMode.MULTIRUN if asked else RunMode.RUN)
        if not asked and common.hydra.mode != RunMode.MULTIRUN:
            return [_checked(copy.deepcopy(common), root)], Composed(common, extra_dir)
        if common.hydra.runtime.choices["hydra/sweeper"] != "basic":
            return [_checked(common, root)], None
        jobs = _expand(common, extra_dir)
    if not jobs:
        raise ConfigError("the sweep has no job: one of its overrides has no value", "Give it one.")
    fixed = unresolved(common.hydra.overrides.hydra)
    return [compose(root, [*fixed, *job], extra_dir=extra_dir) for job in jobs], None


def _expand(common: DictConfig, extra_dir: str | None) -> list[list[str]]:
    """The overrides of each job, as the basic sweeper will make them."""
    swept = [f"{key}={value}" for key, value in (common.hydra.sweeper.params or {}).items()]
    loader = ConfigLoaderImpl(config_search_path=_search_path(extra_dir))
    parser = OverridesParser.create(config_loader=loader)
    parsed = parser.parse_overrides([*swept, *unresolved(common.hydra.overrides.task)])
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return jobs


def unresolved(overrides: Any) -> list[str]:
    """Overrides as the user typed them: what `${oc.env:…}` in one stands for may be secret."""
    return cast(list[str], OmegaConf.to_container(overrides, resolve=False))


@contextmanager
def explained(
    root: str,
    overrides: Sequence[str],
    *,
    raised: tuple[type[Exception], ...] = (Exception,),
) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise inside into a `ConfigError` that says what to do.

    Args:
        raised: which exceptions; all by default, since they raise ValueError, AttributeError and
            AssertionError, too.
    """
    try:
        yield
    except (LmError, MemoryError):
        raise
    except raised as error:
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            raise
        raise explain(error, root, overrides) from error


def _load(root: str, overrides: Sequence[str], extra_dir: str | None, mode: RunMode) -> DictConfig:
    version.setbase(VERSION_BASE)
    setup_globals()
    loader = ConfigLoaderImpl(config_search_path=_search_path(extra_dir))
    given = [*local_search_path(overrides), *overrides]
    config = loader.load_configuration(root, given, mode)
    check_hydra(config.hydra, given)
    return config


def local_search_path(overrides: Sequence[str]) -> list[str]:
    """The override by which `./configs` joins the search path, unless the user set that path."""
    local = Path.cwd() / "configs"
    chosen = any(override.startswith("hydra.searchpath=") for override in overrides)
    if chosen or not local.is_dir() or local.samefile(config_dir()) or "${" in str(local):
        return []
    return [f"hydra.searchpath=[{quote(f'file://{local}')}]"]


def _search_path(extra_dir: str | None) -> ConfigSearchPath:
    path = create_config_search_path(str(config_dir()))
    if extra_dir is not None:
        folder = Path(extra_dir).absolute()
        if not folder.is_dir():
            raise SearchPathException(f"no configuration folder {folder}")
        schemas = SearchPathQuery(provider="schema")
        path.prepend(provider="command-line", path=f"file://{folder}", anchor=schemas)
    return path


def _checked(config: DictConfig, root: str) -> DictConfig:
    """The configuration without Hydra's part, if each name in it is a field."""
    task = _without_hydra(config)
    for name in _added_fields(task):
        raise unknown_field(name, root)
    return task


def _added_fields(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Names that `+name=value` put into a schema that has no such field."""
    schema = OmegaConf.get_type(config)
    fields = getattr(schema, "__dataclass_fields__", None)
    for key in map(str, config):
        if fields is not None and key not in fields:
            yield f"{prefix}{key}"
        node = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        if isinstance(node, DictConfig) and not (node._is_none() or node._is_interpolation()):
            yield from _added_fields(node, f"{prefix}{key}.")


def _without_hydra(config: DictConfig) -> DictConfig:
    with open_dict(config):
        del config["hydra"]
    return config
