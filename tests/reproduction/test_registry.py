"""The registered rows: well-formed, and every recipe composes and builds."""

import hashlib
import math
import re
from functools import cache
from pathlib import Path

import pytest

from lm.config import TrainConfig, compose, parse, prepare
from lm.config.fields import flatten, plain
from lm.config.registry import schema_names
from lm.data.corpus import Corpus, Document
from lm.errors import ConfigError, DataError
from lm.models import RecurrentConfig
from lm.optim.optimizers import SGDConfig
from lm.reproduction import registry
from lm.reproduction.data import check_data, registered_hashes
from lm.reproduction.registry import ROWS, find
from lm.reproduction.row import Cost, Metric, Row, Stage

ROOT = Path(__file__).parents[2]
STAGES = [(row, stage) for row in ROWS.values() for stage in row.stages]
LABELS = ["-".join(filter(None, (row.name, stage.name))) for row, stage in STAGES]


def recipe(row: Row, stage: Stage) -> TrainConfig:
    arguments = [prepare(argument) for argument in stage.arguments(row.name)]
    return parse(compose("train", arguments), TrainConfig)


def test_the_published_values_are_those_that_were_asked_for() -> None:
    stated = {
        "ptb_small": 117.61, "ptb_small_tied": 110.44, "ptb_small_tied_40": 87.17,
        "ptb_medium_untied": 80.97, "ptb_medium": 75.96, "ptb_large_untied": 77.42,
        "ptb_large": 72.30, "ptb_char": 1.175, "enwik8": 1.232,
        "zaremba_small": 114.5, "zaremba_medium": 82.7, "zaremba_large": 78.4,
    }  # fmt: skip
    assert {name: ROWS[name].published for name in stated} == stated


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_rows_are_well_formed(row: Row) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", row.name)
    assert row.data in schema_names("data")
    assert 0 < row.tolerance < 0.1
    assert row.source
    stated = [stage.published for stage in row.stages if stage.published is not None]
    assert row.stages[-1].published is not None
    assert all(math.isfinite(value) and value > 0 for value in stated)
    names = [stage.name for stage in row.stages]
    assert len(set(names)) == len(names)
    assert all(names) or len(names) == 1
    assert (row.metric is Metric.bits_per_character) == (row.characters is not None)
    for digest in registered_hashes(row).values():
        assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", digest)


@pytest.mark.parametrize(("row", "stage"), STAGES, ids=LABELS)
def test_every_recipe_composes_and_builds(row: Row, stage: Stage) -> None:
    config = recipe(row, stage)
    assert config.name == "/".join(filter(None, ("reproduce", row.name, stage.name)))
    assert config.trainer.test
    assert config.data.group == "data"
    assert type(config.data).__name__.lower().startswith(row.data.replace("_", ""))
    model = config.model.build(11, seed=1)
    assert model.vocab_size == 11
    config.optim.build(dict(model.named_parameters()), lr_scales={})


EXPERIMENTS = sorted({stage.experiment for _, stage in STAGES if stage.experiment})


@pytest.mark.parametrize("stage", EXPERIMENTS)
def test_an_experiment_says_what_it_reproduces_and_by_which_command(stage: str) -> None:
    text = (ROOT / "configs/experiment" / f"{stage}.yaml").read_text()
    for heading in ("# Reproduces:", "# Command:    lm reproduce ", "# Expected:", "# Cost:"):
        assert heading in text


def test_names_are_unique() -> None:
    assert [row.name for row in registry._LISTED] == list(ROWS)


@pytest.mark.parametrize(
    ("name", "steps", "norm"), [("small", 20, 5.0), ("medium", 35, 5.0), ("large", 35, 10.0)]
)
def test_rates_of_zaremba_are_theirs_for_a_mean_over_the_window(
    name: str, steps: int, norm: float
) -> None:
    """Their gradient is summed over T steps: our rate is T times theirs, our clipping 1/T."""
    config = parse(compose("train", [f"experiment=zaremba_{name}"]), TrainConfig)
    assert isinstance(config.optim, SGDConfig)
    assert config.trainer.window == steps
    assert config.optim.lr == pytest.approx(1.0 * steps)
    assert config.trainer.clip.norm == pytest.approx(norm / steps, rel=1e-5)


def test_the_families_differ_in_what_their_names_say() -> None:
    @cache
    def leaves(name: str) -> dict[str, object]:
        return flatten(plain(compose("train", [f"experiment={name}"])))

    def differing(one: str, other: str) -> set[str]:
        a, b = leaves(one), leaves(other)
        return {key for key in a if a[key] != b[key]} - {"name"}

    assert differing("ptb_small", "ptb_small_tied") == {"model.tied"}
    assert differing("ptb_medium", "ptb_medium_untied") == {"model.tied"}
    assert differing("ptb_large", "ptb_large_untied") == {"model.tied"}
    sizes = {"model.embedding_size", "model.hidden_size"}
    rates = {f"model.dropout.{place}" for place in ("embedding", "between", "output")}
    assert differing("ptb_medium", "ptb_large") == sizes | rates
    large = parse(compose("train", ["experiment=zaremba_large"]), TrainConfig).model
    assert isinstance(large, RecurrentConfig)
    assert (large.dropout.embedding, large.init.output_bias.scale) == (0.65, 0.04)


def test_the_roots_of_train_and_reproduce_compose_alike() -> None:
    train, reproduce = plain(compose("train")), plain(compose("reproduce"))
    own = ("row", "record", "fresh", "changed_data")
    assert {name: value for name, value in reproduce.items() if name not in own} == train


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no published result named 'ptb_smal'; nearest: ptb_sma"):
        find("ptb_smal")


def test_costs_say_whether_they_were_measured() -> None:
    assert str(Cost(minutes=6.6)) == "≈ 7 min"
    assert str(Cost(minutes=6.6, measured=True)) == "7 min"
    assert str(Cost(minutes=171)) == "≈ 2.9 h"
    assert str(Cost(minutes=10_000)) == "≈ 7 days"


def corpus(tmp_path: Path) -> Corpus:
    parts = {"train": b"one two\n", "valid": b"three\n", "test": b"four\n"}
    for name, text in parts.items():
        (tmp_path / name).write_bytes(text)
    return Corpus("tiny", **{name: (Document(tmp_path / name),) for name in parts})


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_data_are_checked_by_split_or_as_one_text(tmp_path: Path, algorithm: str) -> None:
    text = b"one two\nthree\nfour\n"
    whole = {"text": hashlib.new(algorithm, text).hexdigest()}
    split = {"test": hashlib.new(algorithm, b"four\n").hexdigest()}
    for hashes in (whole, split):
        row = Row(name="t", system="", data="text", source="", stages=(), hashes=hashes)
        assert check_data(row, corpus(tmp_path), allowed=False) == (hashes, True)
        bad = Row(
            name="t", system="", data="text", source="", stages=(), note="See there.",
            hashes={what: digest[:-1] + "x" for what, digest in hashes.items()},
        )  # fmt: skip
        found, verified = check_data(bad, corpus(tmp_path), allowed=True)
        assert (found, verified) == (hashes, False)
        with pytest.raises(DataError, match="See there"):
            check_data(bad, corpus(tmp_path), allowed=False)
