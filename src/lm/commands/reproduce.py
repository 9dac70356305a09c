"""`lm reproduce`: run a published recipe, or continue or take its run, and compare."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lm.commands.matching import find_run, is_done
from lm.commands.train import train
from lm.config import (
    Invocation,
    ReproduceConfig,
    TrainConfig,
    compose,
    invocation,
    invoking,
    key_of,
    parse,
    prepare,
    recipe_changes,
)
from lm.errors import ReproductionError, Stopped
from lm.reproduction.data import check_data
from lm.reproduction.records import keep, measured, record
from lm.reproduction.registry import find
from lm.reproduction.row import Row, Stage
from lm.reproduction.verdict import Comparison, Verdict
from lm.run_directory import RunDirectory

log = logging.getLogger(__name__)

_OWN_FIELDS = ("row", "record", "fresh", "changed_data")


def run(config: ReproduceConfig) -> None:
    """Bring each stage of the row to its end, compare it with what was published, record it.

    Raises:
        ReproductionError: a value is worse than the row's tolerance allows.
    """
    row, given = find(config.row), users_overrides()
    RunDirectory.check_place(Path(config.runs))
    if config.record is not None:
        RunDirectory.check_place(Path(config.record), "record")
    for later in row.stages[1:]:  # what is wrong with one must not show after hours
        plan(row, later, given)
    comparisons: list[Comparison] = []
    before: Path | None = None
    for stage in row.stages:
        planned = plan(row, stage, given, before)
        data = check(planned, config)
        directory = finished_run(planned, given, fresh=config.fresh)
        if stage.published is not None:
            comparisons.append(compare(planned, directory, data, config.record))
        before = directory.path
    conclude(comparisons)


def users_overrides() -> list[str]:
    """What the user said, after the recipe and the row's name that the command line put there."""
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    keys = [key_of(override) for override in call.overrides]
    return list(call.overrides[keys.index("row") + 1 :])


@dataclass(frozen=True, slots=True)
class Plan:
    """A stage as it will be trained.

    Attributes:
        overrides: of `lm train`: the recipe's, then the user's.
        changes: how the user's depart from the recipe.
    """

    row: Row
    stage: Stage
    overrides: list[str]
    composed: DictConfig
    config: TrainConfig
    changes: tuple[str, ...]


def plan(row: Row, stage: Stage, given: Sequence[str], before: Path | None = None) -> Plan:
    """The stage's recipe with the user's overrides.

    Args:
        before: the run of the stage before.

    Raises:
        ConfigError: they do not make a configuration.
    """
    recipe = [prepare(argument) for argument in stage.arguments(row.name)]
    if before is not None:
        recipe.append(prepare(f"init_from={before}"))
    overrides = recipe + [text for text in given if key_of(text) not in _OWN_FIELDS]
    composed = compose("train", overrides)
    changes = recipe_changes(compose("train", recipe), composed)
    return Plan(row, stage, overrides, composed, parse(composed, TrainConfig), changes)


def check(planned: Plan, config: ReproduceConfig) -> dict[str, Any]:
    """The digests of the text, and whether they are the registered ones.

    Raises:
        DataError: they are not, and `changed_data` does not allow it.
    """
    corpus = planned.config.data.build(planned.config.runtime.cache_folder())
    digests, verified = check_data(planned.row, corpus, allowed=config.changed_data)
    return {"digests": digests, "verified": verified}


def finished_run(planned: Plan, given: Sequence[str], *, fresh: bool) -> RunDirectory:
    """The stage's run, brought to its end: taken, continued or made.

    Raises:
        Stopped: a signal asked for it; the same command goes on.
    """
    found = None if fresh else find_run(planned.config, planned.composed, planned.overrides)
    if found is not None and is_done(found.directory):
        log.info("%s is done: compared again (fresh=true trains anew)", found.directory.path)
        return found.directory
    overrides, composed = planned.overrides, planned.composed
    if found is not None:
        overrides = [*overrides, *found.resuming()]
        composed = compose("train", overrides)
    try:
        with invoking(Invocation(composed, tuple(overrides))):
            return train(parse(composed, TrainConfig)).directory
    except Stopped as stop:
        words = [planned.row.name, *(text for text in given if key_of(text) != "fresh")]
        raise Stopped(stop.cause, f"Continue with: lm reproduce {' '.join(words)}") from None


def compare(
    planned: Plan, directory: RunDirectory, data: dict[str, Any], folder: str | None
) -> Comparison:
    """Hold the run's test value against the published one, say so, and record it."""
    row, stage = planned.row, planned.stage
    assert stage.published is not None
    changes = planned.changes if data["verified"] else (*planned.changes, "other data")
    value = measured(row, directory)
    comparison = Comparison(row, stage, stage.published, value, changes)
    content = record(comparison, directory, seed=planned.config.seed, data=data)
    places = keep(content, directory.path, Path(folder) if folder else None)
    sys.stdout.write(f"{comparison.describe()}\n")
    sys.stdout.flush()
    log.info("recorded in %s", ", ".join(map(str, places)))
    return comparison


def conclude(comparisons: Sequence[Comparison]) -> None:
    """Fail if a stage did.

    Raises:
        ReproductionError: it did.
    """
    failed = [c for c in comparisons if c.verdict is Verdict.failed]
    if failed:
        row, worst = failed[0].row, failed[0]
        shown = row.metric.show
        raise ReproductionError(
            f"{row.name} was not reproduced: test {row.metric.value} {shown(worst.measured)}"
            f" instead of {shown(worst.published)}",
            f"{row.note} Another seed= shows the spread; fresh=true trains anew.".lstrip(),
        )
