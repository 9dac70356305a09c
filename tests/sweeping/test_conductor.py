"""Trials side by side: begun, ended early, interrupted, taken up again; without any training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from study_problem import DEFAULT, TAG, Bench, Fake, loss

from lm.errors import DataError, NumericError, Stopped
from lm.runtime.ownership import Owner
from lm.sweeping import conductor
from lm.sweeping.methods import Pruner, Sampler
from lm.sweeping.report import Results
from lm.sweeping.space import Parameter


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "POLL_SECONDS", 0.0)


def of_trial(number: int, change: Callable[[Fake], None]) -> Callable[[Fake], None]:
    def shape(fake: Fake) -> None:
        if fake.order.directory.name == str(number):
            change(fake)

    return shape


def test_trials_run_side_by_side_and_the_best_beats_the_default(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.conductor(trials=9, workers=3).conduct()
    records = bench.study().records()
    assert [record.state for record in records] == ["complete"] * 9
    assert bench.most == 3
    assert {fake.order.place for fake in bench.made} == {0, 1, 2}
    assert records[0].params == DEFAULT
    assert [record.default for record in records] == [True] + [False] * 8
    # The lowest of three validations, of which the last is the lowest.
    assert all(r.value == pytest.approx(loss(r.params) + 1 / 3) for r in records)
    assert all(len(record.curve) == 3 for record in records)
    results = Results.of(bench.study(), TAG, bench.space)
    assert results.best is not None
    assert results.best.value < records[0].value - 1
    assert set(results.importance) == set(bench.space)


def test_a_trial_behind_the_others_ends_early(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pruner=Pruner.median)
    bench.shape = of_trial(4, lambda fake: setattr(fake, "params", {"optim.lr": 1e9}))
    bench.conductor(trials=5).conduct()
    records = bench.study().records()
    assert [record.state for record in records] == ["complete"] * 4 + ["pruned"]
    assert len(records[4].curve) == 2  # the first one does not count
    assert records[4].value is None
    assert [fake.events for fake in bench.made] == [[]] * 4 + [["stop"]]


def test_the_default_is_not_ended_early(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pruner=Pruner.median)

    def slow(fake: Fake) -> None:
        fake.params, fake.slowness = {"optim.lr": 1e9}, 12

    bench.shape = of_trial(0, slow)
    bench.conductor(trials=5, workers=2).conduct()
    assert [record.state for record in bench.study().records()] == ["complete"] * 5


def test_a_failed_trial_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, shape=of_trial(1, lambda fake: setattr(fake, "ends", 7)))
    sweep = bench.conductor(trials=4, workers=2)
    sweep.conduct()
    records = bench.study().records()
    assert [r.state for r in records] == ["complete", "failed", "complete", "complete"]
    assert records[1].facts["cause"] == "no luck in 1"
    assert sweep.failure is not None
    assert sweep.failure.code == 7


def test_without_a_finite_loss_a_trial_has_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, shape=of_trial(0, lambda fake: setattr(fake, "validations", 0)))
    sweep = bench.conductor(trials=1)
    sweep.conduct()
    assert isinstance(sweep.failure, NumericError)


def test_what_fails_with_nothing_changed_ends_the_sweep_until_it_is_mended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, shape=of_trial(0, lambda fake: setattr(fake, "ends", 3)))
    with pytest.raises(DataError, match="no luck in 0"):
        bench.conductor(trials=4, workers=2).conduct()
    assert bench.made[1].events == ["stop"]
    bench.shape = lambda fake: None
    bench.conductor(trials=4, workers=2).conduct()
    assert [record.state for record in bench.study().records()] == ["complete"] * 4


def test_an_interrupted_sweep_goes_on_to_what_it_would_have_been(tmp_path: Path) -> None:
    whole = Bench(tmp_path / "whole")
    parts = Bench(tmp_path / "parts", storage=f"sqlite:///{tmp_path / 'study.db'}")
    for bench in (whole, parts):
        bench.folder.mkdir()
    whole.conductor(trials=6).conduct()
    for number in (2, 4):
        sweep = parts.conductor(trials=6)
        sweep.requested = lambda last=number: "SIGTERM" if len(parts.made) > last else None
        with pytest.raises(Stopped, match="by SIGTERM: 1 trials are saved"):
            sweep.conduct()
        states = [record.state for record in parts.study().records()]
        assert states == ["complete"] * (len(states) - 1) + ["running"]
    parts.conductor(trials=6).conduct()
    assert parts.study().records() == whole.study().records()
    resumed = [fake.order.overrides[1:] for fake in parts.made if len(fake.order.overrides) > 1]
    assert resumed == [["resume=2"], ["resume=3"]]


def test_trials_of_a_killed_sweep_are_taken_up_wherever_they_were(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sweep = bench.conductor(trials=3, workers=3)

    def killed() -> str | None:
        if len(bench.made) < 3:
            return None
        raise KeyboardInterrupt

    sweep.requested = killed
    with pytest.raises(KeyboardInterrupt):
        sweep.conduct()
    assert [fake.events for fake in bench.made] == [["kill"]] * 3
    begun = [fake.order.overrides[0] for fake in bench.made]
    # One had saved nothing, one goes on, one came to its end when nobody listened any more.
    shutil.rmtree(tmp_path / "0/checkpoints")
    (tmp_path / "0/leftover").touch()
    for fake in (bench.made[1], *[bench.made[2]] * 4):
        fake.code = None
        fake.poll()
    assert json.loads((tmp_path / "2/summary.json").read_text())["status"] == "done"
    bench.conductor(trials=3, workers=3).conduct()
    assert [fake.order.overrides[0] for fake in bench.made[3:]] == begun[:2]
    assert [fake.order.overrides[1:] for fake in bench.made[3:]] == [[], ["resume=1"]]
    assert not (tmp_path / "0/leftover").exists()
    records = bench.study().records()
    assert [record.state for record in records] == ["complete"] * 3
    assert [len(record.curve) for record in records] == [3, 3, 3]


def test_a_trial_whose_old_process_is_still_saving_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.study().propose(DEFAULT)
    (tmp_path / "0").mkdir()
    lock = tmp_path / "0/lock"
    lock.write_text(Owner.of_this_process().write())
    sweep = bench.conductor(trials=1)
    looks: list[int] = []

    def look() -> None:
        looks.append(len(bench.made))
        if len(looks) == 9:
            lock.unlink()

    sweep.requested = look
    sweep.conduct()
    assert looks[:9] == [0] * 9
    assert [record.state for record in bench.study().records()] == ["complete"]


def test_a_trial_of_another_sweep_of_the_study_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.study(owner="another").propose(DEFAULT)
    bench.conductor(trials=3).conduct()
    assert [record.state for record in bench.study().records()] == ["running"] + ["complete"] * 2
    assert [fake.order.directory.name for fake in bench.made] == ["1", "2"]


def test_a_trial_that_somebody_stopped_is_kept_for_the_next_call(tmp_path: Path) -> None:
    bench = Bench(tmp_path, shape=of_trial(1, lambda fake: fake.stop()))
    with pytest.raises(Stopped, match="a signal to it: 1 trials"):
        bench.conductor(trials=3).conduct()
    assert [r.state for r in bench.study().records()] == ["complete", "running", "complete"]
    bench.shape = lambda fake: None
    bench.conductor(trials=3).conduct()
    assert [r.state for r in bench.study().records()] == ["complete"] * 3


def test_the_same_values_are_not_trained_twice(tmp_path: Path) -> None:
    bench = Bench(tmp_path, space={"model": Parameter(choices=["a", "b"])}, default={"model": "b"})
    bench.shape = lambda fake: None
    bench.conductor(trials=6).conduct()
    records = bench.study().records()
    assert len(bench.made) == 2
    values = {record.params["model"]: record.value for record in records}
    assert [record.value for record in records] == [values[r.params["model"]] for r in records]
    assert sum("same_as" in record.facts for record in records) == 4


def test_a_grid_takes_every_combination_once(tmp_path: Path) -> None:
    space = {"a": Parameter(low=1, high=3, step=1), "b": Parameter(choices=[None, "x"])}
    bench = Bench(tmp_path, Sampler.grid, space=space, default={"a": 2, "b": None})
    bench.conductor(trials=6).conduct()
    tried = [tuple(record.params.values()) for record in bench.study().records()]
    assert tried == [(2, None), (1, None), (1, "x"), (2, "x"), (3, None), (3, "x")]


def test_a_default_outside_the_space_is_run_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, default={})
    bench.conductor(trials=3).conduct()
    records = bench.study().records()
    assert [record.params == {} for record in records] == [True, False, False]
    assert [record.default for record in records] == [True, False, False]


def test_no_trial_begins_when_the_time_is_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sweep = bench.conductor(trials=50)
    sweep.seconds = 0.2
    sweep.conduct()
    assert 1 <= len(bench.study().records()) < 50
