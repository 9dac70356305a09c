"""Which of the runs that are there is one of this very recipe, on these very tokens."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lm.checkpoint import read, read_any
from lm.commands.start import corpus_of, sizes_of
from lm.config import TrainConfig, prepare, same_run, saved_config
from lm.config.inherit import inherit_model
from lm.data.prepare import prepare as prepare_data
from lm.data.tokenizers import tokenizer_from_json
from lm.errors import CheckpointError
from lm.models import RecurrentConfig
from lm.run_directory import RunDirectory
from lm.runtime.files import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A run of the recipe.

    Attributes:
        sizes: what the recipe's budget of parameters came to in it; empty without a budget.
    """

    directory: RunDirectory
    sizes: dict[str, int | None]

    def resuming(self) -> list[str]:
        """What `lm train` has to be told besides the recipe to continue the run."""
        sizes = [f"{name}={'null' if v is None else v}" for name, v in self.sizes.items()]
        return [*sizes, prepare(f"resume={self.directory.path}")]


def find_run(config: TrainConfig, composed: DictConfig, overrides: list[str]) -> Found | None:
    """The newest run in the folder of `config` that trains, or has trained, just what it says.

    Args:
        composed: the configuration before it was parsed.
        overrides: those it was composed with.
    """
    if config.init_from is not None:
        folder, begun = read_any(Path(config.init_from), "best")
        saved = saved_config(begun.config, folder / "config.yaml")
        composed = inherit_model(saved, composed, overrides)
    for directory in _newest_first(Path(config.runs) / config.name):
        try:
            found = _matched(directory, config, composed)
        except CheckpointError as error:
            log.warning("passing over %s: %s", directory.path, error)
            continue
        if found is not None:
            return found
    return None


def _matched(directory: RunDirectory, config: TrainConfig, composed: DictConfig) -> Found | None:
    """The run, if it is one of this configuration on the data at hand."""
    newest = directory.checkpoints.find("last")
    checkpoint = read(newest)
    tokenizer = tokenizer_from_json(checkpoint.tokenizer)
    expected, sizes = composed.copy(), {}
    if isinstance(config.model, RecurrentConfig) and config.model.parameters is not None:
        sizes = sizes_of(config.model.solved(tokenizer.vocab_size))
    for name, value in sizes.items():
        OmegaConf.update(expected, name, value)
    if not same_run(saved_config(checkpoint.config, newest / "config.yaml"), expected):
        return None
    cache = config.runtime.cache_folder()
    prepared = prepare_data(corpus_of(config), tokenizer, config.data.unit, cache)
    tokens = {name: store.fingerprint for name, store in prepared.stores.items()}
    return Found(directory, sizes) if checkpoint.state.get("data") == tokens else None


def is_done(directory: RunDirectory) -> bool:
    """Whether a run has come to its end and was tested there."""
    try:
        summary = read_json(directory.path / "summary.json")
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("status") == "done" and "test" in summary


def _newest_first(folder: Path) -> Iterator[RunDirectory]:
    """The runs with something to continue, by the time in their names."""
    for path in sorted(folder.glob("*/checkpoints"), reverse=True):
        directory = RunDirectory(path.parent)
        if directory.checkpoints.newest_first():
            yield directory
