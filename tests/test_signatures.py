"""The checks of signatures that run in all other tests: they see what they are there for."""

from collections.abc import Callable

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, Int
from torch import Tensor
from typechecking import checked

from lm.models.embedding import embed
from lm.runtime.randomness import derive_seed


@checked
def _first(
    tokens: Int[Tensor, "T B"], weights: Float[Tensor, "T B"], rows: int
) -> Float[Tensor, "T B"]:
    return weights[:rows] + tokens[:rows]


def test_what_fits_passes() -> None:
    assert _first(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 2), 3).sum() == 6


@pytest.mark.parametrize(
    "call",
    [
        lambda: _first(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 4), 3),
        lambda: _first(torch.zeros(3, 2), torch.ones(3, 2), 3),
        lambda: _first(torch.zeros(3, dtype=torch.int64), torch.ones(3), 3),
        lambda: _first(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 2), 1),
        lambda: _first(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 2), 1.5),  # type: ignore[arg-type]
        lambda: derive_seed("1", 0, "dropout"),  # type: ignore[arg-type]
        lambda: embed(torch.zeros(3, 2, dtype=torch.int64), torch.ones(5), sparse=False),
    ],
    ids=["sizes", "dtype", "rank", "result", "no tensor", "lm's", "lm's, with tensors"],
)
def test_what_does_not_fit_is_noticed(call: Callable[[], object]) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        call()
