"""Language models: recurrent ones, `embedding → one-layer cells → head`, and n-grams."""

from lm.models.gru import GRUConfig
from lm.models.language_model import LanguageModel, ModelConfig, Output
from lm.models.layer_norm_lstm import LayerNormLSTMConfig
from lm.models.lstm import LSTMConfig
from lm.models.lstmp import LSTMPConfig
from lm.models.min_rnn import MinGRUConfig, MinLSTMConfig
from lm.models.mogrifier import MogrifierConfig, MogrifierGRUConfig
from lm.models.ngram import NgramConfig, NgramModel
from lm.models.qrnn import QRNNConfig
from lm.models.recurrent import RecurrentModel
from lm.models.recurrent_config import RecurrentConfig
from lm.models.rnn import RNNConfig
from lm.models.slstm import SLSTMConfig

CELLS: dict[str, type[RecurrentConfig]] = {
    "rnn": RNNConfig,
    "lstm": LSTMConfig,
    "gru": GRUConfig,
    "layer_norm_lstm": LayerNormLSTMConfig,
    "lstmp": LSTMPConfig,
    "mogrifier": MogrifierConfig,
    "mogrifier_gru": MogrifierGRUConfig,
    "slstm": SLSTMConfig,
    "mingru": MinGRUConfig,
    "minlstm": MinLSTMConfig,
    "qrnn": QRNNConfig,
}
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
