"""`init_from=` takes the model of a checkpoint; the command line may change what is no shape."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from lm.config.overrides import key_of
from lm.errors import ConfigError


def inherit_model(saved: DictConfig, composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composed configuration with the saved model and tokenizer, `model.*` overrides applied.

    A group choice (`model=gru`) stands: whether it is the checkpoint's architecture is checked
    by the caller, who can say what differs.
    """
    keys = {key_of(override) for override in overrides}
    asked, theirs = (OmegaConf.get_type(config, "tokenizer") for config in (composed, saved))
    if any(key.split(".")[0] == "tokenizer" for key in keys) and asked is not theirs:
        raise ConfigError(
            "init_from brings its tokenizer, so tokenizer= cannot choose another",
            "Drop the override, or train from scratch without init_from.",
        )
    result = composed.copy()
    result["tokenizer"] = saved["tokenizer"]
    if "model" in keys:
        return result
    result["model"] = saved["model"]
    for key in keys:
        if key.startswith("model."):
            OmegaConf.update(result, key, OmegaConf.select(composed, key))
    return result
