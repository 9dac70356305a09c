"""What a composed configuration may have Hydra itself do.

Hydra runs code that YAML names: it calls the `_target_` of callbacks, launchers and sweepers with
all that is below them, makes log handlers of any class, sets environment variables such as CC and
LM_PLUGINS before we read them, and gives the jobs of a sweep whatever overrides a file lists as its
own or the sweeper's. But a YAML file may be a stranger's, since `./configs` of the
working directory joins the search path. So nothing of this is taken from a file; what the command
line itself says is the user's own.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf

from lm.config.overrides import key_of
from lm.errors import ConfigError

_VARIABLES = "hydra.job.env_set"
_PLUGINS = ("launcher", "sweeper")
# `oc.create` and others could make a `_target_` out of text.
_PLAIN = re.compile(r"\$\{(?:[\w.\[\]]+|(?:hydra|now|oc\.env|python_version):[^${}]*)\}")


def check_hydra(hydra: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse what would run code.

    Args:
        overrides: those that it was composed with.

    Raises:
        ConfigError: naming the key.
    """
    content: dict[str, Any] = OmegaConf.to_container(hydra, resolve=False)  # type: ignore[assignment]
    listed = content["overrides"]
    if sorted([*listed["hydra"], *listed["task"]]) != sorted(overrides):
        raise _refusal("hydra.overrides")
    if content.get("callbacks"):
        raise _refusal("hydra.callbacks")
    for name in ("job_logging", "hydra_logging"):
        logging = content.get(name)
        if not isinstance(logging, dict) or logging.get("root", "") is not None:
            raise _refusal(f"hydra.{name}")
    given = {key_of(override) for override in overrides}
    for variable in content["job"]["env_set"]:
        if not given & {_VARIABLES, f"{_VARIABLES}.{variable}"}:
            raise _refusal(f"{_VARIABLES}.{variable}")
    for key in _keys(content["sweeper"]):  # overrides of each job
        if key_of(key).startswith("hydra"):
            raise _refusal(f"hydra.sweeper: {key}")
    registered = set(_registered_targets())
    for key, value in _leaves(content, "hydra"):
        plugin = key.split(".")[1] in _PLUGINS
        if key.endswith("._target_") and not (plugin and value in registered):
            raise _refusal(key)
        if plugin and isinstance(value, str) and "${" in _PLAIN.sub("", value):
            raise _refusal(key)


def _refusal(key: str) -> ConfigError:
    return ConfigError(
        f"{key} could run code that a file names",
        "Take it out; code of your own is a plugin: LM_PLUGINS=<module>.",
    )


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Dotted name → value of everything that is neither a mapping nor a list."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}")
    elif isinstance(tree, list):
        for k, value in enumerate(tree):
            yield from _leaves(value, f"{name}.{k}")
    else:
        yield name, tree


def _keys(tree: Any) -> Iterator[str]:
    """The keys of all mappings."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key)
            yield from _keys(value)


def _registered_targets() -> Iterator[str]:
    """Each `_target_` that an installed plugin of Hydra's has registered with its schema."""

    def walk(tree: Any) -> Iterator[str]:
        for entry in tree.values():
            if isinstance(entry, ConfigNode):
                if OmegaConf.is_dict(entry.node):
                    content = OmegaConf.to_container(entry.node, resolve=False)
                    yield from (v for k, v in _leaves(content, "") if k.endswith("._target_"))
            else:
                yield from walk(entry)

    yield from walk(ConfigStore.instance().repo.get("hydra", {}))
