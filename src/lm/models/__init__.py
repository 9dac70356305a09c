"""Language models: recurrent ones, `embedding → one-layer cells → head`, and n-grams."""

from lm.models.gru import GRUConfig
from lm.models.language_model import LanguageModel, ModelConfig, Output
from lm.models.lstm import LSTMConfig
from lm.models.ngram import NgramConfig, NgramModel
from lm.models.recurrent import RecurrentConfig, RecurrentModel
from lm.models.rnn import RNNConfig

CELLS: dict[str, type[RecurrentConfig]] = {"rnn": RNNConfig, "lstm": LSTMConfig, "gru": GRUConfig}
MODELS: dict[str, type[ModelConfig]] = {**CELLS, "ngram": NgramConfig}

__all__ = [
    "CELLS",
    "MODELS",
    "LanguageModel",
    "ModelConfig",
    "NgramConfig",
    "NgramModel",
    "Output",
    "RecurrentConfig",
    "RecurrentModel",
]
