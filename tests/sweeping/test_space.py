"""What may be chosen: ranges and lists, their ends, how they stand in an override."""

import pytest

from lm.config.search import searched
from lm.errors import ConfigError
from lm.sweeping.space import Parameter, contains, corners, grid, listed, written

REFUSED = {
    "neither both ends": Parameter(low=1.0),
    "must be a finite number, got nan": Parameter(low=float("nan"), high=1.0),
    "low of x must be below its high, got 2 and 1": Parameter(low=2.0, high=1.0),
    "step of x must be a finite number > 0": Parameter(low=0.0, high=1.0, step=0.0),
    "log of x needs low > 0 and no step, got low=0": Parameter(low=0.0, high=1.0, log=True),
    "got low=1 and step=1": Parameter(low=1.0, high=2.0, log=True, step=1.0),
    "has choices and a range": Parameter(low=1.0, high=2.0, choices=[1]),
    "len(choices) of x must be >= 1": Parameter(choices=[]),
    "choices of x are numbers, texts": Parameter(choices=[[64, 32]]),
    "has a choice twice": Parameter(choices=[1, "1"]),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_range_and_no_list_is_refused(said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        REFUSED[said].check("x")
    assert said in caught.value.cause


def test_a_count_takes_whole_numbers() -> None:
    parameter = Parameter(low=64.0, high=250.0, step=64.0).whole("x")
    assert listed(parameter) == [64, 128, 192]
    assert all(type(value) is int for value in listed(parameter) or ())
    assert listed(Parameter(low=1.0, high=3.0).whole("x")) == [1, 2, 3]
    assert listed(Parameter(low=1.0, high=3.0, log=True).whole("x")) is None
    with pytest.raises(ConfigError, match="x takes whole numbers, got low"):
        Parameter(low=0.5, high=3.0).whole("x")


def test_steps_end_where_they_were_typed() -> None:
    parameter = Parameter(low=0.1, high=0.7, step=0.2)
    assert listed(parameter) == [0.1, 0.3, 0.5, 0.7]
    assert contains(parameter, 0.3)
    assert not contains(parameter, 0.4)
    assert not contains(parameter, 0.9)
    assert not contains(parameter, None)
    assert listed(Parameter(low=0.0, high=1.0)) is None


def test_corners_hold_every_end_and_every_choice() -> None:
    space = {"a": Parameter(low=0.0, high=0.9, step=0.5), "b": Parameter(choices=[None, "x", True])}
    assert corners(space) == [
        {"a": 0.0, "b": None}, {"a": 0.5, "b": "x"}, {"a": 0.0, "b": True},
    ]  # fmt: skip
    assert len(list(grid(space))) == 6


def test_values_are_written_as_overrides_read_them() -> None:
    assert [*map(written, (None, True, 3, 1e-07, "[64,32]"))] == [
        "null", "true", "3", "1e-07", "[64,32]",
    ]  # fmt: skip


ENTRIES = {
    "optim.lr=tag(log,interval(1e-4,0.1))": "optim.lr: {low: 0.0001, high: 0.1, log: true}",
    "optim.lr=interval(0,1)": "optim.lr: {low: 0.0, high: 1.0, log: false}",
    "model.hidden_size=range(64,200,64)": "model.hidden_size: {low: 64, high: 192, step: 64}",
    "seed=range(3,4)": "seed: {choices: [3]}",
    "model=rnn,lstm": "model: {choices: ['rnn','lstm']}",
    "x=[1,2],[3],null,2.5": "x: {choices: ['[1,2]','[3]',null,2.5]}",
    "++lr_scales.head=1,2": "lr_scales.head: {choices: [1,2]}",
}


@pytest.mark.parametrize("typed", ENTRIES)
def test_several_values_on_the_command_line_are_a_parameter(typed: str) -> None:
    assert searched(typed) == f"++space={{{ENTRIES[typed]}}}"


@pytest.mark.parametrize("typed", ["optim.lr=0.1", "model.layer_sizes=[1,2]", "x=interval(", "~x"])
def test_one_value_stays_as_it_is(typed: str) -> None:
    assert searched(typed) == typed
