"""Recurrent language models: `embedding → stack of one-layer cells, our dropout between → head`."""

from lm.models.gru import GRUConfig
from lm.models.language_model import LanguageModel, ModelConfig, Output
from lm.models.lstm import LSTMConfig
from lm.models.recurrent import RecurrentModel
from lm.models.recurrent_config import RecurrentConfig
from lm.models.rnn import RNNConfig

CELLS: dict[str, type[RecurrentConfig]] = {"rnn": RNNConfig, "lstm": LSTMConfig, "gru": GRUConfig}
MODELS: dict[str, type[ModelConfig]] = {**CELLS}

__all__ = [
    "CELLS",
    "MODELS",
    "LanguageModel",
    "ModelConfig",
    "Output",
    "RecurrentConfig",
    "RecurrentModel",
]
