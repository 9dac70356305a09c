"""Recurrent language models: `embedding → stack of one-layer cells, our dropout between → head`."""

from lm.models.gru import GRUConfig
from lm.models.language_model import LanguageModel, ModelConfig, Output
from lm.models.lstm import LSTMConfig
from lm.models.rnn import RNNConfig

MODELS: dict[str, type[ModelConfig]] = {"rnn": RNNConfig, "lstm": LSTMConfig, "gru": GRUConfig}

__all__ = ["MODELS", "LanguageModel", "ModelConfig", "Output"]
