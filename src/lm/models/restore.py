"""A model from the tensors of a checkpoint, made only once they are known to fit it.

A configuration of a few bytes may ask for any amount of memory. What a model of it would hold is
found out on torch's `meta` device, where a tensor has a shape and no data.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lm.errors import CheckpointError
from lm.models.language_model import LanguageModel, ModelConfig, compare_tensors
from lm.models.recurrent import RecurrentModel
from lm.models.recurrent_config import RecurrentConfig
from lm.runtime.untrusted import contained


def check_fit(config: ModelConfig, vocab_size: int, tensors: Mapping[str, Tensor]) -> None:
    """Compare tensors with those of a model of `config`, without making one.

    Other models than recurrent ones are as large as their tensors, whatever their configuration.

    Raises:
        CheckpointError: a name, shape or type differs, or there cannot be such a model.
    """
    if not isinstance(config, RecurrentConfig):
        return
    if config.parameters is not None:
        raise CheckpointError(
            f"the checkpoint's model.parameters={config.parameters} stands where sizes should",
            "Use another checkpoint.",
        )
    try:
        with contained("the checkpoint's model"), torch.device("meta"):
            own = _assembled(config, vocab_size).tensors()
    except CheckpointError:
        if type(config).__module__.startswith("lm."):
            raise
        return  # a cell of the user's own may need data to be made
    compare_tensors(own, tensors)


def restored(config: ModelConfig, vocab_size: int, tensors: Mapping[str, Tensor]) -> LanguageModel:
    """The model that the tensors were taken from, on the CPU; nothing is drawn at random.

    Raises:
        CheckpointError: as `check_fit`, or a parameter is not finite.
    """
    check_fit(config, vocab_size, tensors)
    if isinstance(config, RecurrentConfig):
        model: LanguageModel = _assembled(config, vocab_size)
    else:
        model = config.build(vocab_size, seed=0)
    model.load_tensors(tensors)
    return model


def _assembled(config: RecurrentConfig, vocab_size: int) -> RecurrentModel:
    """Not filled yet. A cell with modules of torch.nn draws from the global generator."""
    with torch.random.fork_rng(devices=[]):
        return config.assemble(vocab_size)
