"""The audit passes every model of ours, and names what is wrong with each that cheats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_problem import model_of, text_of
from torch import Tensor, nn

from lm.errors import AuditError
from lm.evaluation.audit import audit, require
from lm.models import CELLS, RecurrentModel
from lm.models.base import LayerState
from lm.models.language_model import Output
from lm.models.rnn import RNN
from lm.models.weights import Weights


class Peeking(RNN):
    """Reads the next token instead of this one, where the window has it."""

    def sequence(self, x: Tensor, state: LayerState, weights: Weights) -> tuple[Tensor, LayerState]:
        return super().sequence(torch.cat([x[1:], x[-1:]]), state, weights)


class Forgetful(RNN):
    """Begins each window afresh."""

    def sequence(self, x: Tensor, state: LayerState, weights: Weights) -> tuple[Tensor, LayerState]:
        return super().sequence(x, {"h": torch.zeros_like(state["h"])}, weights)


class Sociable(RNN):
    """Mixes what the streams know."""

    def sequence(self, x: Tensor, state: LayerState, weights: Weights) -> tuple[Tensor, LayerState]:
        return super().sequence(x.mean(1, keepdim=True).expand_as(x), state, weights)


def with_cell(cell: type[RNN]) -> RecurrentModel:
    model = model_of("rnn", scale=2)
    bad = cell(5, 6, **_arguments(model.layers[0]))
    bad.load_state_dict(model.layers[0].state_dict())
    model.layers = nn.ModuleList([bad])
    return model


def _arguments(layer: nn.Module) -> dict[str, Any]:
    return {"nonlinearity": layer.nonlinearity, "num_biases": 1}


class Improper(RecurrentModel):
    """Claims a little more than probability one."""

    def log_prob(self, *arguments: Any, **named: Any) -> Any:
        log_p, state = super().log_prob(*arguments, **named)
        return log_p + 0.01, state

    def forward(self, *arguments: Any, **named: Any) -> Output:
        output = super().forward(*arguments, **named)
        return Output(output.objective, output.nll - 0.01, output.state)


class Flattering(RecurrentModel):
    """Reports another loss than that of its distribution."""

    def forward(self, *arguments: Any, **named: Any) -> Output:
        output = super().forward(*arguments, **named)
        return Output(output.objective, 0.99 * output.nll, output.state)


class Told(RecurrentModel):
    """Is easier on itself where a later target is even."""

    def forward(self, tokens: Tensor, targets: Tensor, *arguments: Any, **named: Any) -> Output:
        output = super().forward(tokens, targets, *arguments, **named)
        later = targets.float().flip(0).cumsum(0).flip(0) - targets
        return Output(output.objective, output.nll - 0.1 * later.sin().abs(), output.state)


class Remembering(RecurrentModel):
    """Does not reset."""

    def forward(self, *arguments: Any, **named: Any) -> Output:
        return super().forward(*arguments, **{**named, "resets": None})


def as_class(kind: type[RecurrentModel]) -> RecurrentModel:
    model = model_of(scale=2)
    model.__class__ = kind
    return model


@pytest.mark.parametrize(
    ("name", "n"), [*((name, 60) for name in CELLS), ("lstm", 2), ("lstm", 3), ("lstm", 2200)]
)
def test_our_models_pass(tmp_path: Path, name: str, n: int) -> None:
    units = [k for k in (0, 1, 17, 900) if k < n]
    found = audit(model_of(name, scale=2), text_of(tmp_path, n, units=units))
    assert [check.describe() for check in found if not check.passed] == []
    require(found)
    assert [check.name for check in found] == [
        "causality", "blindness", "normalisation", "loss", "state", "streams", "counts", "chunks",
        "resets",
    ]  # fmt: skip
    assert next(check for check in found if check.name == "counts").detail == (
        f"{min(n - 1, 2048):,} predictions for {min(n - 1, 2048):,} targets"
    )


@pytest.mark.parametrize(
    ("make", "faults"),
    [
        (lambda: with_cell(Peeking), {"causality", "state", "chunks"}),
        (lambda: with_cell(Forgetful), {"state", "chunks"}),
        (lambda: with_cell(Sociable), {"streams"}),
        (lambda: as_class(Improper), {"normalisation"}),
        (lambda: as_class(Flattering), {"loss"}),
        (lambda: as_class(Told), {"blindness", "loss", "state", "chunks"}),
        (lambda: as_class(Remembering), {"resets"}),
    ],
    ids=["peeking", "forgetful", "sociable", "improper", "flattering", "told", "remembering"],
)
def test_a_model_that_cheats_is_found_out(
    tmp_path: Path, make: Callable[[], RecurrentModel], faults: set[str]
) -> None:
    found = audit(make(), text_of(tmp_path, 500, units=[200]))
    failed = {check.name for check in found if not check.passed}
    assert failed == faults
    with pytest.raises(AuditError, match=f"{len(failed)} of 9 checks failed: "):
        require(found)
    assert any(check.describe().startswith("FAIL  ") for check in found)
