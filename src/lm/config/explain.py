"""What Hydra and OmegaConf raise, said in the user's terms: the field, the rule, the value."""

import re
from collections.abc import Iterator, Sequence

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from lm.config.fields import plain
from lm.config.overrides import key_of
from lm.config.registry import BASES, OVERLAYS, schema_names
from lm.config.roots import ROOTS
from lm.config.roots.training import TrainConfig
from lm.config.unknown import nearest, unknown_field
from lm.errors import ConfigError

_KINDS = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}


def explain(error: Exception, root: str = "", overrides: Sequence[str] = ()) -> ConfigError:
    """The error as one line of cause and one of remedy.

    Args:
        root: the verb, whose fields are suggested.
        overrides: the command line's.
    """
    help_ = f"`{f'lm {root}'.rstrip()} --help`"
    if "integer string conversion" in str(error):
        return _too_many_digits(overrides)
    if isinstance(error, MissingConfigException):
        return _no_option(error, help_)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, UnicodeDecodeError):
        return ConfigError(
            f"a YAML file in ./configs or --config-dir is not UTF-8: {error.reason} at byte"
            f" {error.start}",
            "Save it in UTF-8.",
        )
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        return ConfigError(f"invalid YAML: {error.problem}{mark or ''}", "Mend the file.")
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _at_field(cause, str(cause.full_key), root)
    key = _missing_key(str(error), overrides)
    if key:
        return unknown_field(key, root)
    message = str(error)
    if "requires --multirun" in message or "add --multirun" in message:
        return _unmeant_sweep(message)
    taken = re.search("An item is already at '([^']+)'", message)
    if taken:
        return ConfigError(f"{taken[1]} exists already", f"Drop the plus: {taken[1]}=….")
    unnamed = [text for text in overrides if not key_of(text)]
    if unnamed:
        return ConfigError(f"expected <field>=<value>, got {unnamed[0]!r}", "Write <field>=….")
    if message.startswith("Config group override must be"):
        return _not_an_option(overrides)
    if "Unexpected type for root: NoneType" in message:
        return _below_null(root, overrides)
    first = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigError(_sentence(first[0]), f"{help_} shows the groups and fields.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_option(error: MissingConfigException, help_: str) -> ConfigError:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return ConfigError(f"no configuration named {option!r}", "Check --config-name.")
    options = sorted(error.options or [])
    close = nearest(option, options)
    hint = f"; nearest: {close}" if close else ""
    return ConfigError(
        f"no option {option!r} in group {group}{hint}",
        f"Options: {', '.join(options)}." if options else f"{help_} lists the options.",
    )


def _unreadable(error: OverrideParseException) -> ConfigError:
    override = error.override
    if "=" not in override.lstrip("="):
        wanted = override.strip("=") or "<field>"
        return ConfigError(f"expected <field>=<value>, got {override!r}", f"Write {wanted}=….")
    key, _, value = override.partition("=")
    quoted = value.replace("'", r"\'")
    return ConfigError(
        f"cannot read the value of {key}: {value!r}",
        f"""Quote it, in the shell and for Hydra: "{key}='{quoted}'".""",
    )


def _too_many_digits(overrides: Sequence[str]) -> ConfigError:
    """Python reads no number of thousands of digits."""
    numbers = {key_of(text): text.partition("=")[2] for text in overrides}
    name, digits = max(numbers.items(), key=lambda item: len(item[1]), default=("a field", ""))
    return ConfigError(
        f"{name}: no number of {len(digits):,} characters can be read", "Set a smaller number."
    )


def _not_an_option(overrides: Sequence[str]) -> ConfigError:
    for key, value in ((key_of(text), text.partition("=")[2]) for text in overrides):
        if key in (*BASES, *OVERLAYS) and (value == "null" or not value.isidentifier()):
            return ConfigError(
                f"{key} takes the name of an option, got {value!r}",
                f"Leave it out for none, or set {key}=<option>.",
            )
    return ConfigError("a group takes the name of an option", "Set <group>=<option>.")


def _below_null(root: str, overrides: Sequence[str]) -> ConfigError:
    keys = [key for key in map(key_of, overrides) if "." in key]
    top = plain(OmegaConf.structured(ROOTS.get(root, TrainConfig)))
    for key in keys:
        group = key.partition(".")[0]
        if group in BASES and top.get(group, "") is None:
            options = "|".join(schema_names(group))
            return ConfigError(
                f"{key} needs a choice of {group}", f"Choose one: {group}=<{options}>."
            )
    return ConfigError(
        f"a field of a null value cannot be set: {', '.join(keys)}", "Set the whole value."
    )


def _unmeant_sweep(message: str) -> ConfigError:
    override = message.partition("'")[2].partition("'")[0]
    key, _, value = override.partition("=")
    return ConfigError(
        f"{override} names several values",
        f"Add -m for a run with each, or write a list: {key}=[{value}].",
    )


def _at_field(error: OmegaConfBaseException, name: str, root: str) -> ConfigError:
    said = str(error.msg or error).strip().splitlines()[0]
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return unknown_field(name, root)
    if isinstance(error, MissingMandatoryValue):
        return _required(name)
    if isinstance(error, InterpolationResolutionError):
        return ConfigError(f"{name}: {_sentence(said)}", f"Set {name}=<value>.")
    if isinstance(error, ValidationError):
        return _ill_typed(error, name, said)
    if "annot merge" in said:
        return ConfigError(
            f"{name}: a list stands where a mapping belongs, or the other way round",
            f"Set {name}=[…] or {name}.<field>=….",
        )
    if "deletion" in said:
        return ConfigError(f"cannot delete the field {name}", f"Set {name}=<value> instead.")
    return ConfigError(f"{name}: {_sentence(said)}", f"Set {name}=<value>.")


def _required(name: str) -> ConfigError:
    if name in BASES:
        options = "|".join(schema_names(name))
        return ConfigError(f"{name} is required", f"Choose one: {name}=<{options}>.")
    return ConfigError(f"{name} is required", f"Set {name}=<value>.")


def _ill_typed(error: ValidationError, name: str, said: str) -> ConfigError:
    value = error.value
    kind = re.search(r"(?:could not be converted to|is not a valid(?! input)) (\w+)", said)
    options = re.search(r"expected one of \[(.*)\]", said)
    if kind:
        rule = _KINDS.get(kind[1], kind[1])
        return ConfigError(f"{name} must be {rule}, got {value!r}", f"Set {name}=<{rule}>.")
    if options:
        close = nearest(str(value), options[1].split(", "))
        return ConfigError(
            f"{name} must be one of {options[1]}, got {value!r}",
            f"Set {name}={close}." if close else f"Set {name} to one of them.",
        )
    if "not a ListConfig" in said:
        return ConfigError(f"{name} must be a list, got {value!r}", f"Set {name}=[{value}].")
    if "is not a valid input" in said:
        return ConfigError(f"{name} cannot be {value!r}", f"Set {name}=<value>.")
    if "to Dict[" in said or "is not a subclass of" in said:
        rule = "a mapping of fields"
        return ConfigError(f"{name} must be {rule}, got {value!r}", f"Set {name}.<field>=<value>.")
    if "is not Optional" in said:
        return ConfigError(f"{name} must not be null", f"Set {name}=<value>.")
    return ConfigError(f"{name}: {_sentence(said)}", f"Set {name}=<value>.")


def _missing_key(message: str, overrides: Sequence[str]) -> str | None:
    """The dotted name that an error without structure is about, if it is about an unknown one."""
    named = re.search(
        r"(?:Could not override|Could not delete(?: from config\.)?) '([^']+)'", message
    )
    if named:
        return named[1]
    attribute = re.search(r"object has no attribute '(\w+)'", message)
    if attribute:
        for parts in (key_of(override).split(".") for override in overrides):
            if attribute[1] in parts:
                return ".".join(parts[: parts.index(attribute[1]) + 1])
    return None


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
