"""`lm sweep` as a user calls it; the trials' processes are stand-ins that train nothing."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from console import error, tree
from optuna.storages import InMemoryStorage
from study_problem import Fake

from lm.cli import main
from lm.commands.search import Search
from lm.commands.sweep import check_same
from lm.config import Invocation, SweepConfig, compose, config_dir, parse
from lm.config.fields import flatten, plain
from lm.errors import ConfigError
from lm.sweeping import conductor
from lm.sweeping.methods import Sampler
from lm.sweeping.process import Order, complaint
from lm.sweeping.space import Parameter
from lm.sweeping.study import Study

SMALL = ["data=markov", "tokenizer=word", "schedule=constant", "trainer.max_steps=7"]


@pytest.fixture(autouse=True)
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """What the sweep has started, in an empty working directory."""
    orders: list[Order] = []

    def start(order: Order) -> Fake:
        orders.append(order)
        told = dict(override.split("=", 1) for override in order.overrides)
        return Fake(order, {"optim.lr": float(told.get("optim.lr", "0.5"))})

    monkeypatch.setattr("lm.commands.sweep.TrainProcess", start)
    monkeypatch.setattr("lm.commands.sweep.usable_cores", lambda: 6)
    monkeypatch.setattr(conductor, "POLL_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    return orders


def sweep(*words: str) -> int:
    return main(["sweep", *SMALL, *words])


def test_a_sweep_from_the_command_line_to_an_experiment(
    started: list[Order], capsys: pytest.CaptureFixture[str]
) -> None:
    space = ["optim.lr=tag(log,interval(0.001,1))", "model.hidden_size=range(64,257,64)"]
    words = [
        "optim.lr=0.5",
        "model.hidden_size=128",
        *space,
        "trials=4",
        "workers=3",
        "pruner=null",
    ]
    words += ["name=first", "save_as=found"]
    assert sweep(*words) == 0
    folder = Path("runs/first/sweep")
    results = json.loads((folder / "results.json").read_text())
    best = results["trials"][results["best"]]
    assert best["value"] == min(trial["value"] for trial in results["trials"])
    assert best["value"] < results["trials"][0]["value"]
    assert results["trials"][0]["params"] == {"optim.lr": 0.5, "model.hidden_size": 128}
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["optim.lr"]) for row in rows] == [
        trial["params"]["optim.lr"] for trial in results["trials"]
    ]
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split()[:2] == [str(results["best"]), f"{best['value']:.4f}"]
    assert (
        f"best: trial {results['best']}, valid/loss {best['value']:.4f}; the default" in shown[-1]
    )
    # A third of six cores each, and what only the best one needs is left out.
    told = ["trainer.bar=false", "trainer.test=false", "trainer.sample_tokens=0"]
    assert list(started[0].overrides[-4:]) == [*told, "runtime.threads=2"]
    assert list(started[0].swept) == ["optim.lr", "model.hidden_size"]
    # The experiment comes to the very configuration of the best trial.
    text = Path("configs/experiment/found.yaml").read_text()
    comment = [line.strip("# ") for line in text.splitlines() if line.startswith("#")]
    said = " ".join(" ".join(comment).split())
    command = f"lm sweep {' '.join(SMALL)} optim.lr=0.5 model.hidden_size=128 '++space={{optim.lr:"
    assert f"Reproduces: trial {results['best']} of `{command}" in said
    assert "name=first save_as=found`. Command: lm train experiment=found Expected: best" in said
    params = [f"{name}={value}" for name, value in best["params"].items()]
    wanted = flatten(plain(compose("train", [*SMALL, *params, "name=found"])))
    assert flatten(plain(compose("train", ["experiment=found"]))) == wanted
    again = compose("train", ["experiment=best", "name=found"], extra_dir=str(folder))
    assert flatten(plain(again)) == wanted


OURS = sorted(path.stem for path in (config_dir() / "sweep").glob("*.yaml"))


def ours(name: str) -> Search:
    given = ("optim=sgd",) if name == "sgd" else ()
    composed = compose("sweep", [f"sweep={name}", *given])
    return Search.of(parse(composed, SweepConfig), Invocation(composed, given), cores=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_every_space_of_ours_holds_the_default_and_composes_at_all_its_ends(name: str) -> None:
    search = ours(name)
    assert set(search.default) == set(search.space)
    search.check(Sampler.tpe)


@pytest.mark.slow
def test_options_of_a_group_are_tried_in_turn(started: list[Order]) -> None:
    assert sweep("model=gru", "model=rnn,gru", "sampler=grid", "name=cells") == 0
    assert [[o for o in order.overrides if "model=" in o] for order in started] == [
        ["model=gru", "model=gru"], ["model=gru", "model=rnn"],
    ]  # fmt: skip


REFUSED = {
    ("optim.lrr=interval(1,2)",): "unknown field optim.lrr; nearest: optim.lr",
    (): "space is empty",
    ("sweep=lr", "save_as=ptb_small"): "save_as=ptb_small: there is such an experiment already",
    ("sweep=lr", "sampler=grid"): "sampler=grid tries every value, and optim.lr has no end",
    ("-m", "sweep=lr"): "lm sweep makes its own runs",
}
ALSO_REFUSED = {
    ("sweep=lr", "storage=x:secret@y"): "storage is not the URL of a database",
    ("model.hidden_size=interval(0.5,9)",): "model.hidden_size takes whole numbers, got low=0.5",
    ("sweep=lstn",): "no option 'lstn' in group sweep; nearest: lstm",
    ("optim.lr=1,abc",): "optim.lr must be a number, got 'abc'",
    ("model.dropout.output=interval(0,1)",): "model.dropout.output must be a number in [0, 1)",
    ("model=lstm,grw",): "no option 'grw' in group model; nearest: gru",
    ("tokenizer=word,char",): "losses per token do not compare where tokenizer differs",
    ("sweep=lr", "trails=3"): "unknown field trails; nearest: trials",
    ("sweep=lr", "resume=x"): "resume=x: lm sweep finds what is to be continued by itself",
    ("sweep=lr", "save_as=a/b"): "save_as must be the name of an experiment",
    ("sweep=lr", "storage=sqlite:////no/such/folder.db"): "unable to open database file",
}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        *REFUSED.items(),
        *(pytest.param(*item, marks=pytest.mark.slow) for item in ALSO_REFUSED.items()),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    words: tuple[str, ...], what: str, started: list[Order], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*words) in (2, 6)
    said = error(capsys)
    assert what in said
    assert "secret" not in said
    assert tree() == []
    assert not started


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    space = {"optim.lr": Parameter(choices=[1, 2])}
    study = Study("one", InMemoryStorage(), space)
    search = Search((), (), compose("train"), space, {})
    check_same(study, search, "valid/loss", tmp_path)
    logs, wider = search.composed.copy(), search.composed.copy()
    logs.trainer.log_every, wider.model.hidden_size = 5, 8
    check_same(study, replace(search, composed=logs), "valid/loss", tmp_path)
    others = {
        "another space": (replace(search, space={}), "valid/loss"),
        "valid/loss instead of valid/x": (search, "valid/x"),
        "another configuration": (replace(search, composed=wider), "valid/loss"),
    }
    for what, (other, tag) in others.items():
        with pytest.raises(ConfigError, match=f"begun with {what}"):
            check_same(study, other, tag, tmp_path)


def test_a_file_of_the_group_sets_the_search_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("configs/sweep").mkdir(parents=True)
    content = {"space": {"optim.lr": {"low": 0.1, "high": 1.0}}, "model": {"hidden_size": 9}}
    text = f"# @package _global_\n{yaml.safe_dump(content)}"
    Path("configs/sweep/mine.yaml").write_text(text)
    assert sweep("sweep=mine") == 2
    assert "sets more than the space" in error(capsys)


@pytest.mark.slow
def test_an_experiment_that_no_sweep_has_written_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = Path("configs/experiment/own.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nname: own\n")
    assert sweep("sweep=lr", "save_as=own") == 2
    assert "there is such an experiment already" in error(capsys)
    assert own.read_text() == "# @package _global_\nname: own\n"


@pytest.mark.slow
def test_all_trials_failing_is_the_sweeps_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lm.commands.sweep.TrainProcess", lambda order: Fake(order, {}, ends=5))
    assert sweep("optim.lr=0.01,0.02", "trials=1") == 5
    assert "trial 0: no luck in 0" in error(capsys)


def test_without_optuna_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert sweep("sweep=lr") == 2
    assert "lm sweep needs Optuna, which is not installed" in error(capsys)


COMPLAINTS: dict[str, Callable[[Path], str]] = {
    "step 1\nlm: error: too bad\n  Mend it.\n": lambda path: "too bad",
    "Killed\n": lambda path: f"ended by signal 9, see {path}",
    "": lambda path: f"ended by signal 9, see {path}",
}


@pytest.mark.parametrize("log", COMPLAINTS)
def test_the_cause_of_a_failure_is_one_line(log: str, tmp_path: Path) -> None:
    path = tmp_path / "3.log"
    path.write_text(log)
    assert complaint(path, -9) == COMPLAINTS[log](path)
