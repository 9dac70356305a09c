"""From a composed configuration to the typed objects that the rest of `lm` is given."""

import re
from collections.abc import Iterator
from typing import Any, TypeVar, cast

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.config.explain import explain
from lm.config.fields import PATH_FIELDS, TEXT_FIELDS, flatten, plain
from lm.errors import ConfigError

Root = TypeVar("Root")

_OPENING = re.compile(r"(\\*)\$\{")
_FIELD = r"\$\{[\w.\[\]]+\}"
_ENVIRONMENT = r"\$\{oc\.env:[^${}]*\}"


def parse(config: DictConfig, schema: type[Root]) -> Root:
    """The configuration as `schema`, resolved, every range check passed.

    Raises:
        ConfigError: a missing or ill-typed value, a value out of range, an interpolation that
            fails or is not allowed where it stands.
    """
    if OmegaConf.get_type(config) is not schema:
        raise ConfigError(
            "the root configuration is not one of lm's",
            "Start its defaults list with one of lm's own, such as `- train`.",
        )
    check_interpolations(config)
    _check_items(config, "")
    # OmegaConf reads the text `???` as a missing value and has no escape for it.
    content = plain(config)
    marks = [name for name in TEXT_FIELDS if content.get(name) == MISSING]
    if marks:
        config = config.copy()
        for name in marks:
            config[name] = ""
    try:
        parsed = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    assert isinstance(parsed, schema), f"{type(parsed)} is not a {schema}"
    for name in marks:
        setattr(parsed, name, MISSING)
    return parsed


_ITEMS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _check_items(config: Any, name: str) -> None:
    """OmegaConf checks the items of a list or mapping, but lets a list in one of them pass.

    Raises:
        ConfigError: naming the item.
    """
    if not isinstance(config, ListConfig | DictConfig):
        return
    if config._is_none() or config._is_missing() or config._is_interpolation():
        return
    rule = _ITEMS.get(config._metadata.element_type)
    for key in range(len(config)) if isinstance(config, ListConfig) else list(config):
        item = config._get_node(key)
        full = f"{name}[{key}]" if isinstance(config, ListConfig) else f"{name}.{key}".lstrip(".")
        if rule and isinstance(item, ListConfig | DictConfig):
            raise ConfigError(f"{full} must be {rule}, got {item}", f"Set {full} to {rule}.")
        _check_items(item, full)


def narrowed(config: DictConfig, schema: type[Any]) -> DictConfig:
    """What a verb's configuration has of another root's fields, as that root.

    Args:
        schema: a root whose fields are among those of `config`.
    """
    result = OmegaConf.structured(schema)
    for name in result:
        result[name] = config._get_node(name)  # the node: its schema, its interpolations
    return cast(DictConfig, result)


def check_interpolations(config: DictConfig) -> None:
    """Let fields refer to fields, and path fields to the environment; refuse other calls.

    Raises:
        ConfigError: naming the field and its value.
    """
    for name, value in flatten(plain(config)).items():
        for text in strings(value):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigError(f"{name} is not valid UTF-8: {text!r}", "Write it in UTF-8.")
            if not _allowed(name, text):
                raise ConfigError(
                    f"{name} may not call a resolver or contain '${{', got {text!r}",
                    "Write the value itself; a path field may use ${oc.env:NAME}.",
                )


def strings(value: Any) -> Iterator[str]:
    """Every string of a leaf, inside lists and mappings too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def _allowed(name: str, text: str) -> bool:
    allowed = re.compile(f"{_FIELD}|{_ENVIRONMENT}" if name in PATH_FIELDS else _FIELD)
    for opening in _OPENING.finditer(text):
        if len(opening[1]) % 2:  # escaped: the literal text `${`
            if name not in PATH_FIELDS and name not in ("prompt", "stop"):
                return False
        elif not allowed.match(text, opening.end() - 2):
            return False
    return True
