"""How a run begins: fresh, resumed exactly (`resume=`), or from other weights (`init_from=`)."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from lm.checkpoint import Checkpoint, read_any
from lm.config import (
    Invocation,
    TrainConfig,
    chosen_schemas,
    dump,
    parse,
    portable_config,
    resume_config,
)
from lm.config.fields import PATH_FIELDS, flatten, plain
from lm.config.inherit import inherit_model
from lm.data.corpus import Corpus, DataConfig
from lm.data.prepare import Prepared, prepare
from lm.data.sources.cut import first_bytes
from lm.data.store import TokenStore
from lm.data.tokenizers import Tokenizer, TokenizerConfig
from lm.errors import CheckpointError, ConfigError
from lm.evaluation import check_evaluable
from lm.loading import opened
from lm.models import LanguageModel, ModelConfig, RecurrentConfig
from lm.models.recurrent_config import HeadKind
from lm.run_directory import RunDirectory
from lm.runtime.compute import Compute, Precision
from lm.runtime.untrusted import as_object
from lm.training.progress import Progress

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Start:
    """What a run begins with.

    Attributes:
        composed: the configuration, interpolations unresolved.
        compute: where and how.
        tokenizer: the checkpoint's, or the configuration of one to train.
        directory, resumed: of the run that is continued.
        weights: the parameters that a new run starts from.
    """

    config: TrainConfig
    composed: DictConfig
    compute: Compute
    corpus: Corpus
    tokenizer: Tokenizer | TokenizerConfig
    directory: RunDirectory | None = None
    resumed: Checkpoint | None = None
    weights: Checkpoint | None = None

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
        model = config.build(size, seed=self.config.seed, counts=counts)
        if self.weights is not None:
            model.load_tensors(_extended(self.weights.model, model))
        return model


def sizes_of(solved: RecurrentConfig) -> dict[str, int | None]:
    """What a run's configuration has in the place of a budget of parameters, by field."""
    return {"model.hidden_size": solved.hidden_size, "model.parameters": None}


def begin(config: TrainConfig, call: Invocation, held: ExitStack) -> Start:
    """Look at `resume` and `init_from`, and find the corpus.

    Args:
        held: takes the lock of a run that is continued, before anything in it is read.
    """
    if config.resume is not None:
        return _resume(Path(config.resume), call, held)
    dump(portable_config(call.config))  # what cannot be saved is refused before anything is written
    if config.init_from is not None:
        return _init_from(Path(config.init_from), call)
    compute = config.runtime.build()
    return Start(config, call.config, compute, corpus_of(config), config.tokenizer)


def corpus_of(config: TrainConfig) -> Corpus:
    """The corpus that a configuration trains on."""
    return build_corpus(config.data, config.runtime.cache_folder())


def build_corpus(data: DataConfig, cache: Path) -> Corpus:
    """A corpus as it is trained on: cut to `data.train_bytes`."""
    corpus = data.build(cache)
    if data.train_bytes is None:
        return corpus
    return replace(corpus, train=first_bytes(corpus.train, data.train_bytes))


def _resume(path: Path, call: Invocation, held: ExitStack) -> Start:
    directory = RunDirectory.open(path)
    _refuse_links(directory.path)
    held.enter_context(directory.owned())
    folder, checkpoint = directory.checkpoints.newest_good()
    found = opened(folder, checkpoint)
    composed = resume_config(found.composed, call.config, call.overrides)
    config = parse(composed, TrainConfig)
    compute = resumed_compute(config, checkpoint)
    progress = as_object(checkpoint.state.get("progress"), "state.progress")
    log.info("resuming %s at step %d", directory.path, Progress.from_json(progress).step)
    return Start(
        config,
        composed,
        compute,
        corpus_of(config),
        found.tokenizer,
        directory=directory,
        resumed=checkpoint,
    )


def resumed_compute(config: TrainConfig, checkpoint: Checkpoint) -> Compute:
    """Where and how a run goes on: by the choices it made when it began."""
    compute = config.runtime.build()
    if "compute" in checkpoint.state:
        picked = config.runtime.precision is Precision.auto
        saved = as_object(checkpoint.state["compute"], "state.compute")
        compute.resume(saved, keep_precision=picked)
    return compute


def _refuse_links(path: Path) -> None:
    """A run's files lie in its directory: a stranger's must not have this one written elsewhere.

    Raises:
        CheckpointError: naming the link.
    """
    for entry in [path / "checkpoints", *path.glob("*")]:
        if entry.is_symlink():
            raise CheckpointError(
                f"{entry} is a link, and a run that goes on would write where it points",
                "Put the file or folder itself in its place.",
            )


def _init_from(path: Path, call: Invocation) -> Start:
    folder, checkpoint = read_any(path, "best")
    found = opened(folder, checkpoint)
    composed = inherit_model(found.composed, call.config, call.overrides)
    config = parse(composed, TrainConfig)
    theirs, ours = found.config.model, config.model
    for name in sorted(theirs.architecture().keys() | ours.architecture().keys()):
        old, new = theirs.architecture().get(name), ours.architecture().get(name)
        if old != new:
            raise CheckpointError(
                f"model.{name} is {new!r}, the weights of {path} have {old!r}",
                "Drop that override: the architecture comes with the weights.",
            )
    compute = config.runtime.build()
    corpus = corpus_of(config)
    tokenizer = found.tokenizer
    if config.extend_vocabulary:
        _check_extendable(ours)
        before = tokenizer.vocab_size
        tokenizer = tokenizer.extended(corpus.train)
        log.info("vocabulary extended from %d to %d", before, tokenizer.vocab_size)
    return Start(config, composed, compute, corpus, tokenizer, weights=checkpoint)


def _check_extendable(model: ModelConfig) -> None:
    """Refuse heads in which a word's place depends on how frequent it was.

    Raises:
        ConfigError: an adaptive softmax.
    """
    if isinstance(model, RecurrentConfig) and model.head is HeadKind.adaptive:
        raise ConfigError(
            "extend_vocabulary=true: model.head=adaptive has clusters of the old words only",
            "Start from weights with model.head=softmax or mixture.",
        )


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
