"""Which of the runs that are there is one of this very recipe, on these very tokens."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lm.checkpoint import read_any
from lm.commands.start import corpus_of
from lm.config import TrainConfig, load_config, same_run
from lm.config.inherit import inherit_model
from lm.data.prepare import prepare
from lm.data.tokenizers import tokenizer_from_json
from lm.errors import CheckpointError
from lm.run_directory import RunDirectory

log = logging.getLogger(__name__)


def find_run(
    config: TrainConfig, composed: DictConfig, overrides: list[str]
) -> RunDirectory | None:
    """The newest run in the folder of `config` that trains, or has trained, just what it says.

    Args:
        composed: the configuration before it was parsed.
        overrides: those it was composed with.
    """
    if config.init_from is not None:
        folder, _ = read_any(Path(config.init_from), "best")
        composed = inherit_model(load_config(folder / "config.yaml"), composed, overrides)
    for directory in _newest_first(Path(config.runs) / config.name):
        try:
            newest = directory.checkpoints.find("last")
            if same_run(load_config(newest / "config.yaml"), composed) and _same_tokens(
                newest, config
            ):
                return directory
        except (CheckpointError, OSError, ValueError, KeyError) as error:
            log.warning("passing over %s: %s", directory.path, error)
    return None


def is_done(directory: RunDirectory) -> bool:
    """Whether a run has come to its end and was tested there."""
    try:
        summary = json.loads((directory.path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("status") == "done" and "test" in summary


def _newest_first(folder: Path) -> Iterator[RunDirectory]:
    """The runs with something to continue, by the time in their names."""
    for path in sorted(folder.glob("*/checkpoints"), reverse=True):
        directory = RunDirectory(path.parent)
        if directory.checkpoints.newest_first():
            yield directory


def _same_tokens(checkpoint: Path, config: TrainConfig) -> bool:
    """Whether the data at hand give the tokens that the run was trained and tested on."""
    tokenizer = tokenizer_from_json(_read(checkpoint / "tokenizer.json"))
    prepared = prepare(
        corpus_of(config), tokenizer, config.data.unit, config.runtime.cache_folder()
    )
    stores = {name: store.fingerprint for name, store in prepared.stores.items()}
    return bool(_read(checkpoint / "state.json")["data"] == stores)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
