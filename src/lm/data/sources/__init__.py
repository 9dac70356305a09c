"""Where text comes from: the sources by the name that `data=NAME` selects."""

from lm.data.corpus import DataConfig
from lm.data.sources.published import (
    Enwik8Config,
    PtbConfig,
    Text8Config,
    Wikitext2Config,
    Wikitext103Config,
)
from lm.data.sources.shakespeare import ShakespeareConfig
from lm.data.sources.text import TextConfig
from lm.data.sources.torch_source import TorchSourceConfig
from lm.data.synthetic.copying import CopyConfig
from lm.data.synthetic.dyck import DyckConfig
from lm.data.synthetic.hmm import HmmConfig
from lm.data.synthetic.markov import MarkovConfig
from lm.data.synthetic.recalling import RecallConfig

SOURCES: dict[str, type[DataConfig]] = {
    "torch_source": TorchSourceConfig,
    "shakespeare": ShakespeareConfig,
    "text": TextConfig,
    "ptb": PtbConfig,
    "wikitext2": Wikitext2Config,
    "wikitext103": Wikitext103Config,
    "enwik8": Enwik8Config,
    "text8": Text8Config,
    "markov": MarkovConfig,
    "hmm": HmmConfig,
    "dyck": DyckConfig,
    "copy": CopyConfig,
    "recall": RecallConfig,
}
