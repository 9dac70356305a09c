"""What a run begins with, and what is made of it: tokens, a model, the configuration to keep."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from lm.checkpoint import Checkpoint
from lm.config import (
    TrainConfig,
    chosen_schemas,
    dump,
    job_directory,
    portable_config,
)
from lm.config.fields import PATH_FIELDS, flatten, plain
from lm.data.corpus import Corpus, DataConfig
from lm.data.prepare import Prepared, prepare
from lm.data.sources.cut import first_bytes
from lm.data.store import TokenStore
from lm.data.tokenizers import Tokenizer, TokenizerConfig
from lm.evaluation import check_evaluable
from lm.models import LanguageModel, RecurrentConfig
from lm.models.vocabulary_parallel import own_tensors
from lm.run_directory import RunDirectory
from lm.runtime.compute import Compute
from lm.runtime.processes import ALONE, Processes

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Start:
    """What a run begins with.

    Attributes:
        composed: the configuration, interpolations unresolved.
        compute: where and how.
        tokenizer: the checkpoint's, or the configuration of one to train.
        processes: that train together.
        directory, resumed: of the run that is continued; without the second, it was lost before
            its first checkpoint.
        weights: the parameters that a new run starts from.
    """

    config: TrainConfig
    composed: DictConfig
    compute: Compute
    corpus: Corpus
    tokenizer: Tokenizer | TokenizerConfig
    processes: Processes = ALONE
    directory: RunDirectory | None = None
    resumed: Checkpoint | None = None
    weights: Checkpoint | None = None

    @property
    def splits(self) -> bool:
        """Each process has some words of the model only."""
        return self.config.runtime.split_vocabulary and not self.processes.alone

    @property
    def prompt(self) -> str:
        """What samples begin with."""
        chosen = self.config.trainer.sample_prompt
        return self.corpus.prompt if chosen is None else chosen

    @property
    def run_text(self) -> str:
        """The configuration as the run directory keeps it, unresolved."""
        return dump(self.composed)

    @property
    def config_text(self) -> str:
        """The configuration as a checkpoint keeps it: it may leave this machine."""
        return dump(portable_config(self.composed))

    def plain_config(self) -> dict[str, Any]:
        """The configuration as plain data, without anything of this machine's environment."""
        return plain(portable_config(self.composed))

    def settle_sizes(self, vocab_size: int) -> None:
        """Put sizes in the place of a budget of parameters, so that a checkpoint says what it is.

        Raises:
            ConfigError: the budget is too small for this vocabulary.
        """
        model = self.config.model
        if not isinstance(model, RecurrentConfig) or model.parameters is None:
            return
        self.config.model = solved = model.solved(vocab_size)
        log.info("model.parameters=%s: hidden size %d", model.parameters, solved.hidden_size)
        for name, value in sizes_of(solved).items():
            OmegaConf.update(self.composed, name, value)

    def hyper_parameters(self) -> dict[str, bool | str | float | int]:
        """Components and scalar values by dotted name, without places on this machine."""
        return chosen_schemas(self.composed) | {
            name: value
            for name, value in flatten(self.plain_config()).items()
            if isinstance(value, bool | str | float | int) and name not in {"name", *PATH_FIELDS}
        }

    def create_directory(self, held: ExitStack) -> RunDirectory:
        """The new run's directory: the first process creates and owns it, the others are told."""
        processes = self.processes
        if not processes.first:
            return RunDirectory(Path(processes.told("directory")))
        directory = RunDirectory.create(Path(self.config.runs) / self.config.name, job_directory())
        if not processes.alone:  # so that it is found if one of them is lost in the next moment
            directory.note_environment(processes.describe())
        held.enter_context(directory.owned())
        processes.tell("directory", str(directory.path))
        return directory

    def load_data(self) -> Prepared:
        """The corpus as tokens, by the tokenizer that the run starts with."""
        config = self.config
        for note in self.corpus.notes:
            log.info("%s: %s", self.corpus.name, note)
        prepared = prepare(
            self.corpus,
            self.tokenizer,
            config.data.unit,
            config.runtime.cache_folder(),
            workers=config.runtime.threads,
        )
        for split in ("valid", "test"):
            check_evaluable(prepared.stores[split], self.corpus.describe(split))
        return prepared

    def build_model(self, tokenizer: Tokenizer, text: TokenStore) -> LanguageModel:
        """The model, from the seed or from the weights to start with.

        Args:
            text: the training split.
        """
        config, size = self.config.model, tokenizer.vocab_size
        counts = torch.from_numpy(text.token_counts(size)) if config.needs_counts else None
        seed = self.config.seed
        if self.splits and isinstance(config, RecurrentConfig):
            split = config.build(size, seed=seed, counts=counts, processes=self.processes)
            if self.weights is not None:
                split.load_tensors(own_tensors(split, self.weights.model))
            return split
        model = config.build(size, seed=seed, counts=counts)
        if self.weights is not None:
            model.load_tensors(_extended(self.weights.model, model))
        return model


def sizes_of(solved: RecurrentConfig) -> dict[str, int | None]:
    """What a run's configuration has in the place of a budget of parameters, by field."""
    return {"model.hidden_size": solved.hidden_size, "model.parameters": None}


def corpus_of(config: TrainConfig) -> Corpus:
    """The corpus that a configuration trains on."""
    return build_corpus(config.data, config.runtime.cache_folder())


def build_corpus(data: DataConfig, cache: Path) -> Corpus:
    """A corpus as it is trained on: cut to `data.train_bytes`."""
    corpus = data.build(cache)
    if data.train_bytes is None:
        return corpus
    return replace(corpus, train=first_bytes(corpus.train, data.train_bytes))


def _extended(saved: dict[str, torch.Tensor], model: LanguageModel) -> dict[str, torch.Tensor]:
    """The saved parameters; rows of new vocabulary entries stay as they were initialised."""
    tensors = dict(saved)
    for name, parameter in model.named_parameters():
        old = tensors.get(name)
        if name not in ("embedding.weight", "head.weight", "head.bias") or old is None:
            continue
        if len(old) < len(parameter) and old.shape[1:] == parameter.shape[1:]:
            tensors[name] = torch.cat([old, parameter.detach()[len(old) :]])
    return tensors
