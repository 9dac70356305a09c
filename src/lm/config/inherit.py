"""`init_from=` takes the model of a checkpoint; the command line may change what is no shape."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from lm.config.overrides import key_of


def inherit_model(saved: DictConfig, composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composed configuration with the saved model, and `model.*` overrides applied to it.

    A group choice (`model=gru`) stands: whether it is the checkpoint's architecture is checked
    by the caller, who can say what differs.
    """
    keys = {key_of(override) for override in overrides}
    result = composed.copy()
    if "model" in keys:
        return result
    result["model"] = saved["model"]
    for key in keys:
        if key.startswith("model."):
            OmegaConf.update(result, key, OmegaConf.select(composed, key))
    return result
