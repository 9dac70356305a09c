"""The fields that hold free text, and how a configuration is walked by dotted names."""

from typing import Any, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf

TEXT_FIELDS = frozenset({"prompt", "stop", "trainer.sample_prompt"})
"""Taken to the letter, whatever they contain."""

PATH_FIELDS = frozenset(
    {
        "against",
        "checkpoint",
        "data.path",
        "data.root",
        "data.test",
        "data.train",
        "data.valid",
        "init_from",
        "interpolate",
        "input",
        "output",
        "path",
        "plot",
        "record",
        "resume",
        "run",
        "runs",
        "runtime.cache",
        "storage",
        "tokenizer.vocabulary",
        "vocabulary",
    }
)
"""Places on this machine: the only fields that may read the environment, as `${oc.env:NAME}`."""


def path_lists(root: type[Any]) -> frozenset[str]:
    """The path fields of a verb that hold one path or, in brackets, several: `[a,b]`."""
    hints = get_type_hints(root)
    return frozenset(name for name in PATH_FIELDS & hints.keys() if "list[" in str(hints[name]))


def plain(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and scalars."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=resolve, enum_to_str=True))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name → value of every leaf; a list and an empty mapping are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{name}.")
        else:
            leaves[name] = value
    return leaves
