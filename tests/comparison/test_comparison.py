"""The table of runs: what is read, what differs, what is not to be compared."""

import csv
import json
import math
from pathlib import Path

import pytest
from run_folders import make_run

from lm.comparison.finding import find_runs, labels
from lm.comparison.formats import Format, written
from lm.comparison.reading import KILLED, Outcome, Run, read_run
from lm.comparison.table import Ends, Spread, Table, described, differing, tabulate
from lm.errors import CheckpointError, ConfigError


def run(path: str = "r", *, loss: float | None = 1.0, **fields: object) -> Run:
    """A run in memory; its test loss is that of validation."""
    test = Outcome(loss=loss, bits_per_byte=None if loss is None else loss / 2)
    known = {"seed": 1, "model": "lstm", **fields}
    return Run(
        path=Path(path), fields=known, status="done", tokens=600, seconds=2.0, best_loss=loss,
        test=test, data={}, tokenizer="t",
    )  # fmt: skip


def table(*runs: Run, by_seed: bool = False, sort: str | None = None) -> Table:
    return tabulate(runs, [str(one.path) for one in runs], by_seed=by_seed, sort=sort)


def column(found: Table, name: str) -> list[object]:
    return [row[name] for row in found.rows]


def test_only_what_differs_is_a_column_and_the_best_is_first() -> None:
    lr, size = {"optim.lr": 0.1}, {"model.hidden_size": 8}
    found = table(
        run("a", loss=2.0, **lr, **size), run("b", loss=1.0, **(lr | size | {"optim.lr": 0.2}))
    )
    assert found.fields == ["optim.lr"]
    assert column(found, "run") == ["b", "a"]
    assert column(found, "optim.lr") == [0.2, 0.1]
    assert column(found, "valid_perplexity") == [math.exp(1.0), math.exp(2.0)]
    assert column(found, "tokens_per_second") == [300.0, 300.0]


def test_a_field_that_only_some_have_differs_among_those() -> None:
    rounds = {"model": "mogrifier", "model.cell.rounds": 5}
    assert differing([run(), run(**rounds)]) == ["model"]
    assert differing([run(), run(**rounds), run(**(rounds | {"model.cell.rounds": 4}))]) == [
        "model", "model.cell.rounds",
    ]  # fmt: skip


def test_what_does_not_act_is_no_difference() -> None:
    first = {"name": "x", "runs": "/a", "trainer.bar": True, "trainer.keep": 1}
    second = {"name": "y", "runs": "/b", "trainer.bar": False, "trainer.keep": 2}
    assert differing([run(**first), run(**second)]) == []
    # An n-gram model is counted: the trainer's settings are not its own.
    counted = run(**{"model": "ngram", "trainer.window": 5})
    assert differing([counted, run(**{"trainer.window": 7})]) == ["model"]
    assert described(counted, ["model", "trainer.window"]) == "model=ngram"
    odd = run(**{"model.tied": True, "model.sizes": [1, 2], "x.lr": 1e-3, "y.lr": None})
    fields = ["model.tied", "model.sizes", "x.lr", "y.lr"]
    assert described(odd, fields) == "tied=true, sizes=[1, 2], x.lr=0.001, y.lr=null"


def test_seeds_become_one_row_with_mean_and_deviation() -> None:
    losses = {1: 1.0, 2: 1.2, 3: 1.7}
    runs = [run(f"s/{seed}", loss=loss, seed=seed) for seed, loss in losses.items()]
    found = table(*runs, run("other", loss=9.0, model="rnn"), by_seed=True)
    assert column(found, "n") == [3, 1]
    assert column(found, "model") == ["lstm", "rnn"]
    assert found.rows[0]["run"] == "s/{1,2,3}"
    assert "seed" not in found.columns
    spread = found.rows[0]["valid_loss"]
    assert isinstance(spread, Spread)
    # Mean 1.3; squares 0.09 + 0.01 + 0.16 over n − 1 = 2.
    assert (spread.mean, spread.deviation) == pytest.approx((1.3, math.sqrt(0.13)))
    assert found.rows[1]["valid_loss"] == 9.0
    assert "1.3000 ± 0.3606" in written(found, Format.text)
    assert json.loads(written(found, Format.json))["runs"][0]["valid_loss_deviation"] > 0.36


@pytest.mark.parametrize(
    ("sort", "order"), [("run", "ab"), ("-run", "ba"), ("test_loss", "ba"), ("-seed", "ba")]
)
def test_sorting(sort: str, order: str) -> None:
    found = table(run("a", loss=2.0, seed=1), run("b", loss=1.0, seed=2), sort=sort)
    assert "".join(map(str, column(found, "run"))) == order


def test_what_is_not_known_is_last_whatever_the_direction() -> None:
    runs = [run("a", loss=None), run("b", loss=1.0), run("c", loss=math.nan)]
    for sort in ("valid_loss", "-valid_loss"):
        assert column(table(*runs, sort=sort), "run")[0] == "b"


def test_a_column_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no column 'test_los'; nearest: test_loss"):
        table(run(), sort="test_los")


def changed(one: Run, **values: object) -> Run:
    kept = {name: getattr(one, name) for name in Run.__dataclass_fields__}
    return Run(**{**kept, **values})  # type: ignore[arg-type]


def test_other_tokenizers_are_said_aloud_and_bits_per_byte_rank() -> None:
    one = run("a", loss=1.0)
    other = changed(run("b", loss=2.0), tokenizer="u", test=Outcome(loss=2.0, bits_per_byte=0.1))
    found = table(one, other)
    assert column(found, "run") == ["b", "a"]
    assert "tokenizers differ (a | b)" in found.remarks[0]
    assert len(found.remarks) == 1


def test_other_data_are_said_aloud_unless_only_the_training_text_is_shorter() -> None:
    prints = {"train": "1", "valid": "2", "test": "3"}
    one = changed(run("a"), data=prints)
    assert table(one, changed(run("b"), data={**prints, "train": "9"})).remarks == []
    assert table(one, changed(run("b"), data={**prints, "test": "9"})).remarks == [
        "test data differ (a | b): its losses do not compare"
    ]


def test_approximate_validation_and_unfinished_runs_are_said_aloud() -> None:
    streams = "trainer.valid_streams"
    running = changed(run("b", **{streams: 2}), status=KILLED)
    said = " ".join(table(run("a", **{streams: 1}), running).remarks)
    assert "trainer.valid_streams differ" in said
    assert "not done: b" in said
    assert "lm train resume=<run>" in said


def test_the_excess_is_what_a_run_is_above_the_floor_of_its_text() -> None:
    found = table(changed(run("a"), test=Outcome(loss=1.75, floor=1.5)), run("b", seed=2))
    assert column(found, "test_excess") == [0.25, None]
    assert "0.2500" in written(found, Format.text)


# Formats


def test_every_format_has_the_same_numbers() -> None:
    one = changed(run("a|b", loss=1.25), test=Outcome(loss=1.25, interval=(3.0, 4.0)))
    found = table(one, run("c", loss=2.5, seed=2))
    text, markdown = written(found, Format.text), written(found, Format.markdown)
    assert text.splitlines()[1].split() == [
        "a|b", "1", "done", "600", "2", "300", "1.2500", "3.49", "1.2500", "3.00", "to", "4.00",
        "-",
    ]  # fmt: skip
    assert r"| a\|b | 1 | done |" in markdown
    rows = list(csv.DictReader(written(found, Format.csv).splitlines()))
    assert [float(row["valid_loss"]) for row in rows] == [1.25, 2.5]
    assert (rows[0]["test_perplexity_interval_low"], rows[1]["seed"]) == ("3.0", "2")
    assert json.loads(written(found, Format.json))["runs"][0]["test_perplexity_interval_high"] == 4
    assert found.rows[0]["test_perplexity_interval"] == Ends(3.0, 4.0)


def test_a_diverged_run_is_null_in_json_and_a_name_cannot_move_the_cursor() -> None:
    found = table(run("a\x1b[2J", loss=math.inf))
    assert json.loads(written(found, Format.json))["runs"][0]["valid_loss"] is None
    assert "\x1b" not in written(found, Format.text)


# Reading


def test_a_runs_files_give_its_numbers(tmp_path: Path) -> None:
    found = read_run(make_run(tmp_path / "r", loss=1.5), {"seed": 1})
    assert (found.status, found.parameters, found.steps, found.best_step) == ("done", 1234, 30, 20)
    assert (found.best_loss, found.test.loss, found.test.bits_per_byte) == (1.5, 1.6, 0.75)
    assert found.tokenizer == "t"
    assert found.data["test"] == "c"


def test_a_run_whose_process_is_gone_stands_where_its_checkpoint_does(tmp_path: Path) -> None:
    progress = {"step": 7, "tokens": 70, "seconds": 3.0, "best_loss": 4.0, "best_step": 5}
    path = make_run(
        tmp_path / "r", summary={"status": "running"}, state={"progress": progress}
    )  # fmt: skip
    found = read_run(path, {})
    assert found.status == KILLED
    assert (found.steps, found.tokens, found.best_loss, found.best_step) == (7, 70, 4.0, 5)
    assert found.test == Outcome()


def test_an_infinite_metric_is_no_damage(tmp_path: Path) -> None:
    path = make_run(tmp_path / "r")
    (path / "summary.json").write_text('{"status": "failed", "metrics": {"test/loss": Infinity}}')
    assert read_run(path, {}).test.loss is None


@pytest.mark.parametrize(("loss", "interval"), [(2.1, (7.5, 8.5)), (2.2, None)])
def test_an_interval_counts_if_it_is_of_these_weights(
    tmp_path: Path, loss: float, interval: tuple[float, float] | None
) -> None:
    path = make_run(tmp_path / "r", loss=2.0)  # its test loss is 2.1
    found = {"loss": loss, "perplexity": 8.0, "interval": [7.5, 8.5]}
    (path / "evaluation.json").write_text(json.dumps({"test": found}))
    assert read_run(path, {}).test.interval == interval


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", "cannot be read"),
        ("summary.json", '{"status": "fine"}', "no status is called 'fine'"),
        ("summary.json", '{"status": "done", "steps": -1}', "steps must be a whole number >= 0"),
        ("summary.json", '{"status": "done", "seconds": "1"}', "seconds must be a finite number"),
        ("evaluation.json", '{"test": {"loss": 2.1, "interval": [1]}}', "two ends"),
    ],
)
def test_a_strangers_values_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = make_run(tmp_path / "r", loss=2.0)
    (path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_run(path, {})


# Finding


def test_runs_are_found_below_folders_by_number_and_once(tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/9", "single"):
        make_run(tmp_path / "x" / name)
    (tmp_path / "x" / "link").symlink_to(tmp_path / "x")
    found = find_runs([str(tmp_path / "x"), str(tmp_path / "x" / "sweep" / "*")])
    assert labels(found) == ["single", "sweep/9", "sweep/10"]
    assert labels(find_runs([str(tmp_path / "x/sweep/[19]*")])) == ["10", "9"]
    assert labels(find_runs([str(tmp_path / "x/single")])) == ["single"]


def test_a_place_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run in"):
        find_runs([str(tmp_path)])
    with pytest.raises(CheckpointError, match=r"there is no .*nothing"):
        find_runs([str(tmp_path / "nothing")])
