"""Rehearsing training from a checkpoint, for `lm inspect`: its run put together, in memory."""

import logging
from contextlib import ExitStack
from dataclasses import replace

from lm.checkpoint import read
from lm.commands.assembly import assemble
from lm.commands.begin import resumed_compute
from lm.commands.start import Start, corpus_of
from lm.config import InspectConfig
from lm.errors import DataError
from lm.loading import Loaded, opened
from lm.run_directory import RunDirectory
from lm.training.rehearsal import Rehearsal, rehearse
from lm.training.signals import StopFlag
from lm.training.snapshot import restore

log = logging.getLogger(__name__)


def rehearsed(config: InspectConfig, loaded: Loaded) -> Rehearsal | None:
    """The next steps of the run that a checkpoint is of; None where it cannot go on, and why is
    logged.
    """
    assert config.steps is not None
    saved = read(loaded.path)
    if "optimizer" not in saved.state:
        log.warning("no steps to rehearse: %s was not trained here", loaded.path)
        return None
    found = opened(loaded.path, saved)
    own = replace(found.config, runtime=config.runtime)
    start = Start(
        own,
        found.composed,
        resumed_compute(own, saved),
        corpus_of(own),
        found.tokenizer,
        directory=RunDirectory(loaded.path.parent.parent),
        resumed=saved,
    )
    try:
        with ExitStack() as held:
            trainer = assemble(start, held, StopFlag())
            restore(trainer, saved)
            return rehearse(trainer, config.steps)
    except DataError as error:
        log.warning("no steps to rehearse: %s", error.cause)
        return None
