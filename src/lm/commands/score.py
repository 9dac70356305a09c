"""`lm score`: surprisal by word, token, sentence or document; n-best lists ranked anew."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from lm.commands.evaluate import load_model
from lm.commands.splits import Splits
from lm.commands.start import build_corpus
from lm.config import ScoreConfig
from lm.errors import ConfigError, DataError
from lm.evaluation.adaptation import Rule, learning, root_mean_squares
from lm.loading import Loaded
from lm.models import RecurrentModel
from lm.run_directory import RunDirectory
from lm.runtime.files import file_atomically, storage_errors
from lm.scoring.columns import Table
from lm.scoring.nbest import COLUMNS, Rescorer
from lm.scoring.output import Format, rows_in
from lm.scoring.reading import Predict
from lm.scoring.scorer import Carry, Scorer
from lm.scoring.source import STANDARD_INPUT, lines_of, name_of, stream_of
from lm.scoring.totals import Totals
from lm.scoring.units import Level

log = logging.getLogger(__name__)


def run(config: ScoreConfig) -> float:
    """Write the rows; the surprisal of all of the text, in bits."""
    compute = config.runtime.build()
    if config.output is not None:
        check_output(config.input, Path(config.output))
    loaded = load_model(config.run, compute, config.checkpoint)
    place = nullcontext(say) if config.output is None else saved(Path(config.output))
    with place as write:
        totals = (rescore if config.format is Format.nbest else score)(config, loaded, write)
    log.info("%s: %s", name_of(config.input), totals.describe())
    if totals.num_unknown:
        unknown = loaded.tokenizer.unknown_id
        assert unknown is not None
        log.warning("%s", totals.describe_unknown(loaded.tokenizer.token(unknown)))
    return totals.bits


def check_output(source: str, target: Path) -> None:
    """Find out before any work whether the output can be written.

    Raises:
        ConfigError: it would replace the input.
        StorageError: its folder cannot be written.
    """
    if source != STANDARD_INPUT and target.exists() and target.samefile(source):
        raise ConfigError(f"output={target} is the input", "Choose another file for the output.")
    RunDirectory.check_place(target.parent, "output")


@contextmanager
def saved(path: Path) -> Iterator[Callable[[str], object]]:
    """Writes a file that is whole or absent."""
    with storage_errors(f"write {path}"), file_atomically(path) as file:
        yield lambda text: file.write(text.encode())


def say(text: str) -> None:
    """Write to standard output at once, past a progress bar."""
    with tqdm.external_write_mode(sys.stdout):
        sys.stdout.write(text)
        sys.stdout.flush()


def score(config: ScoreConfig, loaded: Loaded, write: Callable[[str], object]) -> Totals:
    """Rows of the units of a text.

    Raises:
        DataError: the text cannot be read or encoded, or has no tokens.
    """
    columns = config.wanted_columns()
    rows = rows_in(config.format, columns, write)
    with learner(config, loaded) if config.adaptive else nullcontext(None) as predict:
        scorer = Scorer(
            loaded.model,
            loaded.tokenizer,
            level=config.level,
            columns=columns,
            window=config.dynamic.segment if config.adaptive else config.window,
            begin=config.begins,
            predict=predict,
        )
        for table in tables(scorer, config, loaded):
            rows.write(table)
    totals = scorer.totals
    check_tokens(totals, config.input)
    if config.level is Level.document:
        rows.write(totals.table(columns))
    return totals


def tables(scorer: Scorer, config: ScoreConfig, loaded: Loaded) -> Iterator[Table]:
    """The rows as they become known."""
    cut = loaded.tokenizer.cut
    if config.state is Carry.carry:
        return scorer.stream(stream_of(config.input, cut))
    return scorer.lines(lines_of(config.input, cut))


def rescore(config: ScoreConfig, loaded: Loaded, write: Callable[[str], object]) -> Totals:
    """Hypotheses, by id, the best first.

    Raises:
        DataError: a line is no hypothesis, or there is none.
    """
    rows = rows_in(config.format, COLUMNS, write)
    rescorer = Rescorer(
        loaded.model, loaded.tokenizer, config.rescoring(), window=config.window
    )  # fmt: skip
    lines = lines_of(config.input, loaded.tokenizer.cut)
    for table in rescorer.ranked(
        lines, name_of(config.input), at_once=config.input == STANDARD_INPUT
    ):
        rows.write(table)
    check_tokens(rescorer.totals, config.input)
    return rescorer.totals


def check_tokens(totals: Totals, source: str) -> None:
    """Refuse a text that has nothing to score.

    Raises:
        DataError: it has no tokens.
    """
    if not totals.num_tokens:
        raise DataError(f"{name_of(source)} has no tokens", "Give it at least one word.")


@contextmanager
def learner(config: ScoreConfig, loaded: Loaded) -> Iterator[Predict]:
    """The model, learning from what it reads until the end of the context.

    Raises:
        ConfigError: it has no gradient to learn by.
        CheckpointError: the run's data is not what it was trained with.
    """
    model, rule = loaded.model, config.dynamic
    if not isinstance(model, RecurrentModel):
        raise ConfigError(
            f"adaptive=true needs a recurrent network, and the model is a {type(model).__name__}",
            "Set adaptive=false.",
        )
    scales = None
    if rule.rule is Rule.rms:
        data, cache = loaded.config.data, config.runtime.cache_folder()
        corpus = build_corpus(data, cache)
        splits = Splits(
            loaded, corpus, data.unit, cache, own=True, changed=config.changed_data
        )  # fmt: skip
        log.info("dynamic evaluation: statistics of gradients on %s", corpus.describe("train"))
        scales = root_mean_squares(model, splits("train"), rule)
    assert rule.lr is not None
    assert rule.decay is not None
    with learning(model, lr=rule.lr, decay=rule.decay, scales=scales, eps=rule.eps) as predict:
        yield predict
