"""`lm sweep`: the space checked, trials side by side, the best one as an experiment."""

import json
import logging
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from lm.commands.best_trial import EXPERIMENTS, check_name_is_free, write_experiment
from lm.commands.search import Search
from lm.config import Invocation, SweepConfig, invocation, same_run, saved_config
from lm.errors import ConfigError, NumericError
from lm.run_directory import RunDirectory
from lm.runtime.files import storage_errors, write_atomically
from lm.runtime.ownership import owning
from lm.sweeping.conductor import Conductor
from lm.sweeping.process import TrainProcess
from lm.sweeping.report import RESULTS, TABLE, Results
from lm.sweeping.storage import check_storage, storage_trouble
from lm.sweeping.study import Study, require_optuna
from lm.training.signals import StopFlag

log = logging.getLogger(__name__)


def run(config: SweepConfig) -> float:
    """Search until there are enough trials; the best value that was found."""
    require_optuna()
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    check_places(config)
    search = Search.of(config, call, usable_cores())
    search.check(config.sampler)
    if config.storage is not None:
        check_storage(config.storage)
    stop, tag = StopFlag(), f"valid/{config.metric.value}"
    with stop.listening(), stop.deferring(), sweep_folder(config) as folder, storage_trouble():
        study = open_study(config, search, folder)
        check_same(study, search, tag, folder)
        conduct(config, search, study, folder, stop)
        results = Results.of(study, tag, search.space)
        results.write(folder)
    return conclude(config, search, results, folder, call)


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_places(config: SweepConfig) -> None:
    """Find out before any work whether the results can be written."""
    RunDirectory.check_place(Path(config.runs))
    if config.save_as is not None:
        check_name_is_free(config.save_as)


@contextmanager
def sweep_folder(config: SweepConfig) -> Iterator[Path]:
    """`<runs>/<name>/sweep`, owned while inside.

    Raises:
        StorageError: another process sweeps there, or it cannot be written.
    """
    folder = Path(config.runs, config.name, "sweep")
    with storage_errors(f"create {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with owning(folder / "lock"):
        yield folder


def open_study(config: SweepConfig, search: Search, folder: Path) -> Study:
    """The study, new or as it was left."""
    owner = folder / "owner"
    if not owner.exists():
        write_atomically(owner, secrets.token_hex(8).encode())
    return Study(
        config.name,
        config.storage or f"sqlite:///{(folder / 'study.db').absolute()}",
        search.space,
        sampler=config.sampler,
        pruner=config.pruner,
        seed=config.seed,
        owner=owner.read_text(encoding="utf-8"),
    )


def check_same(study: Study, search: Search, tag: str, folder: Path) -> None:
    """Refuse to go on with a study of something else.

    Raises:
        ConfigError: it searches another space, minimises something else or trains differently.
    """
    space = json.dumps({name: asdict(parameter) for name, parameter in search.space.items()})
    facts = study.settle({"space": space, "metric": tag, "config": search.definition()})
    saved = saved_config(facts["config"], folder / "study.db")
    same = {
        "another space": facts["space"] == space,
        f"{facts['metric']} instead of {tag}": facts["metric"] == tag,
        "another configuration": same_run(saved, search.composed),
    }
    for what, is_same in same.items():
        if not is_same:
            raise ConfigError(
                f"{folder}: the sweep of this name was begun with {what}",
                "Give it what it was begun with, or choose another name=.",
            )


def conduct(
    config: SweepConfig, search: Search, study: Study, folder: Path, stop: StopFlag
) -> None:
    """Run the trials that are left.

    Raises:
        Stopped: a signal asked for it.
        LmError: the default cannot be trained, or no trial came to its end.
    """
    tag, trials = f"valid/{config.metric.value}", search.trials(config)
    with tqdm(total=trials, unit="trial", disable=None, leave=False) as bar:

        def changed() -> None:
            results = Results.of(study, tag, search.space)
            results.write(folder)
            bar.n = sum(record.state != "running" for record in results.records)
            bar.refresh()

        conductor = Conductor(
            study=study,
            folder=folder,
            start=TrainProcess,
            overrides_of=search.overrides_of,
            names=list(search.space),
            default=search.default,
            tag=tag,
            trials=trials,
            seconds=config.seconds,
            workers=config.workers,
            requested=lambda: stop.requested,
            changed=changed,
        )
        conductor.conduct()
    if conductor.failure is not None and not any(r.value is not None for r in study.records()):
        raise conductor.failure


def conclude(
    config: SweepConfig, search: Search, results: Results, folder: Path, call: Invocation
) -> float:
    """Show the trials, and write the best one as an experiment.

    Raises:
        NumericError: no trial came to its end.
    """
    best = results.best
    if best is None or best.value is None:
        raise NumericError(
            f"none of {len(results.records)} trials came to its end",
            f"{folder / RESULTS} says why; more trials=, or others by another name=.",
        )
    paths = [folder / "experiment" / "best.yaml"]
    if config.save_as is not None:
        paths.append(EXPERIMENTS / f"{config.save_as}.yaml")
    composed = search.composed_of({} if best.default else best.params)
    for path in paths:
        write_experiment(path, composed, results, call)
    sys.stdout.write(results.table() + results.verdict())
    sys.stdout.flush()
    shown = shlex.quote(str(folder))
    again = f"-cd {shown} experiment=best"
    if config.save_as is not None:
        again = f"experiment={config.save_as}"
    log.info(
        "results: %s, %s; the best run: %s\nnext:\n  lm train %s\n  tensorboard --logdir %s\n"
        "  lm compare %s",
        folder / RESULTS, TABLE, folder / str(best.number), again, shown, shown,
    )  # fmt: skip
    return best.value
