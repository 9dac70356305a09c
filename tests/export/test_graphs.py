"""The programs that are exported compute what the model does, and a difference is noticed."""

from collections.abc import Callable

import pytest
import torch
from export_cases import CASES, HEADS, STACKS, VARIANTS, subject_of
from torch import Tensor

from lm.errors import ConfigError, ExportError
from lm.export.agreement import TOLERANCE, Agreement, Runner, agreement
from lm.export.graphs import STEP, WINDOW, StepProgram, exportable, flat, nested, state_sizes
from lm.models import CELLS, NgramConfig, RecurrentModel

ONE_OF_EACH = [
    *(f"{cell}, softmax" for cell in CELLS),
    *(f"lstm, {name}" for name in (*HEADS, *STACKS) if name != "softmax"),
    *VARIANTS,
]


def model_of(name: str) -> RecurrentModel:
    return exportable(subject_of(name).model)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_step_program_is_the_model(name: str) -> None:
    model = model_of(name)
    tokens = torch.tensor([[7, 200, 30], [9, 9, 255], [0, 1, 2], [101, 5, 101]])
    wanted, after = model.log_prob(tokens)
    step, state, found = StepProgram(model), flat(model, model.initial_state(3)), []
    for token in tokens:
        log_prob, state = step(token, state)
        found.append(log_prob)
    torch.testing.assert_close(torch.stack(found), wanted, rtol=0, atol=5e-6)
    torch.testing.assert_close(state, flat(model, after), rtol=5e-6, atol=5e-6)


def test_the_state_has_a_name_per_tensor_and_its_order() -> None:
    model = model_of("slstm, softmax")
    assert state_sizes(model) == {f"state.{k}.{n}": 16 for k in range(2) for n in "hcnm"}
    tensors = [torch.full((1, 16), float(k)) for k in range(8)]
    state = nested(model, tensors)
    assert [layer["m"][0, 0].item() for layer in state] == [3, 7]
    assert all(map(torch.equal, flat(model, state), tensors))


def test_a_model_without_a_state_of_tensors_is_refused() -> None:
    with pytest.raises(ConfigError, match="NgramModel"):
        exportable(NgramConfig(order=2).build(10, seed=1))


Change = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]


def runners_of(model: RecurrentModel, change: Change, where: str) -> dict[str, Runner]:
    """The model itself as both programs, one of them changed."""

    def window(tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        log_prob, after = model.log_prob(tokens, nested(model, state))
        return log_prob, flat(model, after)

    step = StepProgram(model)
    runners: dict[str, Runner] = {WINDOW: window, STEP: step}
    sound = runners[where]
    return {**runners, where: lambda tokens, state: change(*sound(tokens, state))}


def check(change: Change, where: str = WINDOW) -> Agreement:
    model = model_of("lstm, one layer")
    return agreement(model, runners_of(model, change, where))


def test_the_largest_difference_is_reported() -> None:
    assert check(lambda log_prob, state: (log_prob, state)).log_prob < 5e-6
    found = check(lambda log_prob, state: (log_prob + 8e-6, state))
    assert found.log_prob == pytest.approx(8e-6, abs=2e-6)
    assert found.state < 5e-6
    assert found.predictions > 50


@pytest.mark.parametrize("where", [WINDOW, STEP])
@pytest.mark.parametrize(
    "change",
    [
        lambda log_prob, state: (log_prob + 2 * TOLERANCE, state),
        lambda log_prob, state: (log_prob * torch.nan, state),
        lambda log_prob, state: (log_prob[..., :-1], state),
        lambda log_prob, state: (log_prob, [state[0], state[1] + 2e-4]),
        lambda log_prob, state: (log_prob, state[::-1]),
    ],
    ids=["log_prob", "NaN", "shape", "state", "order"],
)
def test_what_differs_is_no_export(change: Change, where: str) -> None:
    with pytest.raises(ExportError, match="do not compute"):
        check(change, where)


def test_the_cases_name_every_cell_and_head() -> None:
    assert {cell for cell, _ in CASES.values()} == set(CELLS)
