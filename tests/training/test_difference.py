"""What the comparison of two checkpoints calls a difference, and how it says so."""

import copy
import math
from typing import Any

import pytest
import torch

from lm.checkpoint import Checkpoint
from lm.training.difference import describe, differences

WEIGHT = torch.arange(6, dtype=torch.float32).reshape(2, 3)


def checkpoint(**state: Any) -> Checkpoint:
    return Checkpoint(
        model={"head.weight": WEIGHT.clone(), "head.bias": torch.tensor([0.0, math.nan])},
        training={
            "optimizer/step/head.bias": torch.tensor(3),
            "optimizer/mask": torch.tensor([True, False]),
            "state/0/h": torch.ones(2, 2, dtype=torch.bfloat16),
            "state/0/empty": torch.zeros(0, 3),
        },
        state={
            "progress": {"step": 3, "seconds": 1.0, "best_loss": math.nan},
            "metrics_bytes": 10,
            "machine": {"threads": 1},
            "schedule": {},
            **state,
        },
        config="",
        tokenizer={},
    )


def said(found: Checkpoint) -> list[str]:
    return [str(difference) for difference in differences(checkpoint(), found)]


def test_the_same_bits_are_no_difference_and_time_is_none() -> None:
    other = checkpoint(metrics_bytes=11)
    other.state["progress"]["seconds"] = 2.0
    assert said(other) == []
    # Nor is the way that a tensor lies in memory.
    other.model["head.weight"] = WEIGHT.T.contiguous().T
    assert said(other) == []


@pytest.mark.parametrize(
    ("name", "value", "how"),
    [
        ("head.weight", WEIGHT.double(), "has dtype float64 instead of float32"),
        ("head.weight", WEIGHT[:1], "has shape [1, 3] instead of [2, 3]"),
        ("head.weight", WEIGHT + torch.tensor([0.0, 0.0, 0.25]),
         "differs in 2 of 6 elements, by at most 0.25; the first, at [0, 2], is 2.25 instead of 2"),
        ("head.weight", torch.nextafter(WEIGHT, WEIGHT + 1).where(WEIGHT == 4, WEIGHT),
         "differs in 1 of 6 elements, by at most 4.77e-07; the first, at [1, 1], is"
         " 4.00000048 instead of 4"),
        ("head.bias", torch.tensor([-0.0, math.nan]),
         "differs in 1 of 2 elements, by at most 0; the first, at [0], is -0 instead of 0"),
        ("head.bias", torch.tensor([0.0, 1.0]),
         "differs in 1 of 2 elements, by at most nan; the first, at [1], is 1 instead of nan"),
    ],
)  # fmt: skip
def test_one_bit_of_a_weight_is_a_difference(name: str, value: torch.Tensor, how: str) -> None:
    other = checkpoint()
    other.model[name] = value
    assert said(other) == [f"weights {name} {how}"]


def test_every_kind_of_tensor_is_compared() -> None:
    other = checkpoint()
    other.training["optimizer/step/head.bias"] = torch.tensor(4)
    other.training["optimizer/mask"] = torch.tensor([True, True])
    other.training["state/0/h"] = torch.zeros(2, 2, dtype=torch.bfloat16)
    del other.training["state/0/empty"]
    other.training["novel/thing"] = torch.zeros(1)
    found = said(other)
    assert found == [
        "optimiser step/head.bias is 4 instead of 3",
        "optimiser mask differs in 1 of 2 elements, by at most 1; the first, at [1], is 1"
        " instead of 0",
        "recurrent state 0/h differs in 4 of 4 elements, by at most 1; the first, at [0, 0], is"
        " 0 instead of 1",
        "recurrent state 0/empty is missing",
        "novel thing should not be there",
    ]
    assert describe(differences(checkpoint(), other)) == (
        f"{found[0]}; 4 more: 1 in optimiser, 2 in recurrent state, 1 in novel"
    )


def test_what_others_follow_from_comes_first_and_what_follows_last() -> None:
    other = copy.deepcopy(checkpoint(machine={"threads": 2}, schedule={"misses": 1}))
    other.state["progress"]["step"] = 4
    other.model["head.bias"] = torch.tensor([1.0, math.nan])
    found = said(other)
    assert found[0] == "machine threads is 2 instead of 1"
    assert found[1].startswith("weights head.bias differs in 1 of 2")
    assert found[2:] == [
        "progress step is 4 instead of 3",
        "schedule is missing",
        "schedule misses should not be there",
    ]
