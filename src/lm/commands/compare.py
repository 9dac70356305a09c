"""`lm compare`: what differs between runs, what came of it, and their curves."""

import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from lm.commands import evaluate
from lm.comparison.curves import read_course
from lm.comparison.finding import find_runs, labels
from lm.comparison.formats import SUFFIXES, Format, written
from lm.comparison.plot import Line, draw, require_matplotlib
from lm.comparison.reading import EVALUATION, Run, read_run
from lm.comparison.table import Table, described, differing, tabulate
from lm.config import CompareConfig, EvaluateConfig, flat_config
from lm.errors import CheckpointError, LmError
from lm.run_directory import RunDirectory
from lm.runtime.device import RuntimeConfig
from lm.runtime.files import storage_errors, write_atomically

log = logging.getLogger(__name__)


def run(config: CompareConfig) -> None:
    """Print or write the table, and draw the curves."""
    check_places(config)
    runs = readable(find_runs(config.runs))
    if config.intervals:
        runs = evaluated(runs, config.runtime)
    names = labels([found.path for found in runs])
    table = tabulate(runs, names, by_seed=config.group is not None, sort=config.sort)
    for remark in table.remarks:
        log.warning("%s", remark)
    write(table, config)
    if config.plot is not None:
        plot(runs, names, config, Path(config.plot))


def check_places(config: CompareConfig) -> None:
    """Find out before any work whether the results can be written."""
    for field in ("output", "plot"):
        place = getattr(config, field)
        if place is not None:
            RunDirectory.check_place(Path(place).parent, field)
    if config.plot is not None:
        require_matplotlib()


def readable(folders: Sequence[Path]) -> list[Run]:
    """The runs; one that cannot be read is named, and the others go on.

    Raises:
        CheckpointError: none of them can be read.
    """
    runs = []
    for folder in folders:
        try:
            runs.append(read_run(folder, flat_config(folder / "config.yaml")))
        except CheckpointError as error:
            log.warning("left out: %s", error.cause)
    if not runs:
        raise CheckpointError(
            f"none of {len(folders)} runs can be read", "Give other runs; the lines above say why."
        )
    return runs


def evaluated(runs: Sequence[Run], runtime: RuntimeConfig) -> list[Run]:
    """The runs with the interval of their test perplexity, where there was none yet.

    One that cannot be evaluated, whose corpus is gone perhaps, is named and stays as it was.
    """
    found = []
    for one in tqdm(runs, unit="run", disable=None, leave=False):
        if one.status == "done" and one.test.interval is None:
            settings = EvaluateConfig(
                run=str(one.path), output=str(one.path / EVALUATION), runtime=replace(runtime)
            )
            try:
                with contextlib.redirect_stdout(sys.stderr):  # where the table does not go
                    evaluate.run(settings)
                one = read_run(one.path, one.fields)
            except LmError as error:
                log.warning("no interval for %s: %s", one.path, error.cause)
        found.append(one)
    return found


def write(table: Table, config: CompareConfig) -> None:
    """The table, to the terminal or a file."""
    by_suffix = SUFFIXES.get(Path(config.output or "").suffix, Format.text)
    text = written(table, config.format or by_suffix)
    if config.output is None:
        sys.stdout.write(text)
        return
    with storage_errors(f"write {config.output}"):
        write_atomically(Path(config.output), text.encode())
    log.info("%d rows in %s", len(table.rows), config.output)


def plot(runs: Sequence[Run], names: Sequence[str], config: CompareConfig, path: Path) -> None:
    """The curves of all runs that have some, as a picture.

    Raises:
        CheckpointError: none has.
    """
    fields, lines = differing(runs), []
    if config.group is not None:
        fields = [field for field in fields if field != "seed"]
    for one, name in zip(runs, names, strict=True):
        try:
            course = read_course(one.path / "metrics.jsonl", config.x, config.y)
        except CheckpointError as error:
            log.warning("not drawn: %s", error.cause)
            continue
        if not course.train.x and not course.valid.x:
            log.warning("not drawn: %s has no %s yet", one.path, config.y.value)
            continue
        lines.append(Line(described(one, fields) or name, course))
    if not lines:
        raise CheckpointError(
            f"plot={path}: there is no {config.y.value} to draw in any of these runs",
            "Choose another y=, or give runs that have trained for a while.",
        )
    with storage_errors(f"write {path}"):
        write_atomically(path, draw(lines, config.x, config.y, path))
    log.info("%d curves in %s", len(lines), path)
