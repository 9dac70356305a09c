"""A search space on the command line, and what a configuration has for its parameters."""

from enum import Enum
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, IntegerNode, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.config.overrides import free_text, is_override, key_of
from lm.config.registry import BASES, name_of
from lm.errors import ConfigError
from lm.sweeping.space import Value, written


def searched(override: str) -> str:
    """An override with several values as an entry of the space; another one as it is.

    `optim.lr=tag(log,interval(1e-4,1e-2))`, `model.hidden_size=range(64,257,64)`, `model=rnn,lstm`.

    Raises:
        ConfigError: it names several values in a way that is no range and no list.
    """
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:  # composition will say what is wrong with it
        return override
    if not is_override(override) or not parsed.is_sweep_override():
        return override
    fields = ", ".join(f"{name}: {_written(value)}" for name, value in _parameter(parsed).items())
    return f"++space={{{key_of(override)}: {{{fields}}}}}"


def _parameter(parsed: Override) -> dict[str, Any]:
    """The fields of a `Parameter`."""
    value = parsed.value()
    if isinstance(value, IntervalSweep):
        return {"low": value.start, "high": value.end, "log": "log" in value.tags}
    if isinstance(value, RangeSweep):
        numbers = list(value.range())
        if len(numbers) < 2:
            return {"choices": numbers}
        return {"low": min(numbers), "high": max(numbers), "step": abs(value.step)}
    if isinstance(value, ChoiceSweep):
        pairs = zip(parsed.sweep_iterator(), parsed.sweep_string_iterator(), strict=True)
        return {"choices": [item if _is_number(item) else text for item, text in pairs]}
    raise ConfigError(
        f"{parsed.input_line} is no range and no list", "Write interval(a,b) or a,b,c."
    )


def _is_number(item: object) -> bool:
    return item is None or isinstance(item, bool | int | float)


def _written(value: object) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return free_text(value) if isinstance(value, str) else written(value)


def value_at(config: DictConfig, name: str) -> Value:
    """What a configuration has for a parameter, as an override would say it.

    Of a group it is the name of its schema, of a field that is not there (yet) None.
    """
    if name in BASES:
        schema = OmegaConf.get_type(config, name)
        return None if schema is None else name_of(name, schema)
    try:
        value = OmegaConf.select(config, name)
    except OmegaConfBaseException:
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, ListConfig):
        return f"[{','.join(written(item) for item in value)}]"
    return value.name if isinstance(value, Enum) else None


def takes_whole_numbers(config: DictConfig, name: str) -> bool:
    """Whether a field is a count."""
    parent, _, leaf = name.rpartition(".")
    holder = OmegaConf.select(config, parent) if parent else config
    if not isinstance(holder, DictConfig):
        return False
    return isinstance(holder._get_node(leaf, validate_access=False), IntegerNode)
