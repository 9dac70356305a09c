"""The root schema of `lm prepare`."""

from dataclasses import dataclass

from omegaconf import MISSING

from lm import checks
from lm.data.corpus import DataConfig
from lm.data.tokenizers import TokenizerConfig
from lm.runtime.device import RuntimeConfig


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    """`lm prepare`: a corpus as tokens in the cache, where `lm train` finds it.

    Attributes:
        data: the corpus, as `lm train` will be told.
        tokenizer: likewise.
        workers: processes that encode; None is as many as there are cores.
    """

    data: DataConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    workers: int | None = None
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        checks.at_least("workers", self.workers, 1)
        checks.at_most("workers", self.workers, 1 << 10)
