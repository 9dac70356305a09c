"""Mogrifier, layer norm, projection, sLSTM, minimal and quasi-recurrent cells: their equations.

The references are written from the papers, one unit of arithmetic at a time, and share nothing with
the cells but the names of the weights.
"""

from collections.abc import Callable

import pytest
import torch
from cell_problem import assert_equal, check_kernels, check_lower_precision, check_windows_join
from torch import Tensor

from lm.models import CELLS
from lm.models.base import Cell, LayerState
from lm.models.kernels.scan import linear_recurrence
from lm.models.lstmp import _torch as lstmp_by_torch
from lm.models.weights import KEEP_H

T, B, I, H = 6, 3, 5, 4  # noqa: E741  (the shape legend's letters)
Step = Callable[[dict[str, Tensor], Tensor, LayerState], LayerState]


def affine(w: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    total = x @ w["weight_ih"].T + h @ w["weight_hh"].T
    for name in ("bias_ih", "bias_hh"):
        total = total + w.get(name, 0)
    return total


def lstm_update(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o), c


def rounds(w: dict[str, Tensor], x: Tensor, h: Tensor, count: int, low: bool) -> tuple[Tensor, ...]:
    def matrix(i: int) -> Tensor:
        name = f"weight_round_{i}"
        return w[f"{name}_left"] @ w[f"{name}_right"] if low else w[name]

    for i in range(1, count + 1):
        if i % 2:
            x = 2 / (1 + torch.exp(-(h @ matrix(i).T))) * x
        else:
            h = 2 / (1 + torch.exp(-(x @ matrix(i).T))) * h
    return x, h


def capped(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    x, h = rounds(w, x, state["h"], 2, low=False)
    a = affine(w, x, h)
    f = torch.sigmoid(a[:, H : 2 * H])
    i = torch.min(torch.sigmoid(a[:, :H]), 1 - f)
    c = f * state["c"] + i * torch.tanh(a[:, 2 * H : 3 * H])
    return {"h": torch.sigmoid(a[:, 3 * H :]) * torch.tanh(c), "c": c}


def mogrifier(count: int, low: bool) -> Step:
    def step(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
        x, h = rounds(w, x, state["h"], count, low)
        o, c = lstm_update(affine(w, x, h), state["c"])
        return {"h": o * torch.tanh(c), "c": c}

    return step


def mogrifier_gru(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    x, h = rounds(w, x, state["h"], 3, low=False)
    a, b = x @ w["weight_ih"].T + w["bias_ih"], h @ w["weight_hh"].T + w["bias_hh"]
    r, z = torch.sigmoid(a[:, :H] + b[:, :H]), torch.sigmoid((a + b)[:, H : 2 * H])
    n = torch.tanh(a[:, 2 * H :] + r * b[:, 2 * H :])
    return {"h": (1 - z) * n + z * state["h"]}


def layer_norm_lstm(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    def norm(a: Tensor, gain: Tensor) -> Tensor:
        mean = a.sum(1, keepdim=True) / a.shape[1]
        variance = ((a - mean) ** 2).sum(1, keepdim=True) / a.shape[1]
        return gain * (a - mean) / torch.sqrt(variance + 1e-5)

    a = norm(x @ w["weight_ih"].T, w["gain_x"]) + norm(state["h"] @ w["weight_hh"].T, w["gain_h"])
    o, c = lstm_update(a + w["bias"], state["c"])
    return {"h": o * torch.tanh(norm(c, w["gain_c"]) + w["bias_c"]), "c": c}


def lstmp(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    o, c = lstm_update(affine(w, x, state["h"]), state["c"])
    return {"h": (o * torch.tanh(c)) @ w["weight_hr"].T, "c": c}


def slstm(exponential: bool) -> Step:
    def step(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
        """The equations before they are kept in range: i = exp(ĩ), c and n unscaled."""
        a = affine(w, x, state["h"])
        i = torch.exp(a[:, :H])
        f = torch.exp(a[:, H : 2 * H]) if exponential else torch.sigmoid(a[:, H : 2 * H])
        scale = torch.exp(state["m"])
        c = f * state["c"] * scale + i * torch.tanh(a[:, 2 * H : 3 * H])
        n = f * state["n"] * scale + i
        h = torch.sigmoid(a[:, 3 * H :]) * c / n
        log_f = torch.log(f) + state["m"]
        m = torch.maximum(log_f, a[:, :H])
        return {"h": h, "c": c / torch.exp(m), "n": n / torch.exp(m), "m": m}

    return step


def g(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x + 0.5, 1 / (1 + torch.exp(-x)))


def mingru(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    a = x @ w["weight_ih"].T + w["bias_ih"]
    z = 1 / (1 + torch.exp(-a[:, :H]))
    return {"h": (1 - z) * state["h"] + z * g(a[:, H:])}


def minlstm(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    a = x @ w["weight_ih"].T + w["bias_ih"]
    i, f = torch.sigmoid(a[:, :H]), torch.sigmoid(a[:, H : 2 * H])
    return {"h": (f * state["h"] + i * g(a[:, 2 * H :])) / (f + i)}


def qrnn(w: dict[str, Tensor], x: Tensor, state: LayerState) -> LayerState:
    """Width 3: the state holds x_{t−2} and x_{t−1}."""
    oldest, old = state["x"][:, :I], state["x"][:, I:]
    w1, w2, w3 = w["weight_ih"][:, :I], w["weight_ih"][:, I : 2 * I], w["weight_ih"][:, 2 * I :]
    a = oldest @ w1.T + old @ w2.T + x @ w3.T + w["bias_ih"]
    z, f, o = torch.tanh(a[:, :H]), torch.sigmoid(a[:, H : 2 * H]), torch.sigmoid(a[:, 2 * H :])
    c = f * state["c"] + (1 - f) * z
    return {"h": o * c, "c": c, "x": torch.cat([old, x], 1)}


CASES: dict[str, tuple[str, dict[str, object], Step]] = {
    "mogrifier": ("mogrifier", {"rounds": 5}, mogrifier(5, low=False)),
    "mogrifier of low rank": ("mogrifier", {"rounds": 4, "rank": 2}, mogrifier(4, low=True)),
    "mogrifier, capped": ("mogrifier", {"rounds": 2, "cap_input_gate": True}, capped),
    "mogrifier without rounds": ("mogrifier", {"rounds": 0}, mogrifier(0, low=False)),
    "mogrifier_gru": ("mogrifier_gru", {"rounds": 3, "num_biases": 2}, mogrifier_gru),
    "layer_norm_lstm": ("layer_norm_lstm", {}, layer_norm_lstm),
    "lstmp": ("lstmp", {"projection_size": 3}, lstmp),
    "slstm": ("slstm", {}, slstm(exponential=False)),
    "slstm, exponential": (
        "slstm",
        {"forget_gate": CELLS["slstm"]().forget_gate.__class__["exponential"]},
        slstm(exponential=True),
    ),
    "mingru": ("mingru", {}, mingru),
    "minlstm": ("minlstm", {}, minlstm),
    "qrnn": ("qrnn", {"filter_width": 3}, qrnn),
    "qrnn without a past": ("qrnn", {"filter_width": 1}, None),  # type: ignore[dict-item]
}
SCANNED = {"mingru", "minlstm", "qrnn"}


def make(case: str, dtype: torch.dtype = torch.float64) -> tuple[Cell, Tensor, LayerState]:
    """A cell with random weights, an input and a state that can occur, all with gradients."""
    name, fields, _ = CASES[case]
    draws = torch.Generator().manual_seed(3)
    cell = CELLS[name](hidden_size=H, **fields).build_cell(I, H).to(dtype)
    for parameter in cell.parameters():
        parameter.data.normal_(0, 0.5, generator=draws)
    x = torch.randn(T, B, I, dtype=dtype, generator=draws, requires_grad=True)
    state = {
        key: torch.randn(B, size, dtype=dtype, generator=draws)
        for key, size in cell.state_sizes.items()
    }
    if "n" in state:
        state["n"] = state["n"].abs() + 0.1
    return cell, x, {key: tensor.requires_grad_() for key, tensor in state.items()}


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][2]])
def test_step_equals_the_paper(case: str) -> None:
    cell, x, state = make(case)
    weights, theirs = dict(cell.named_parameters()), dict(state)
    outputs = []
    for x_t in x:
        theirs = CASES[case][2](weights, x_t, theirs)
        outputs.append(theirs["h"])
    y, after = cell.reference(x, state, cell.weights())
    assert_equal([y, *(after[name] for name in theirs)], [torch.stack(outputs), *theirs.values()])


@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_steps_in_value_and_gradient(case: str) -> None:
    cell, x, state = make(case)
    own = {"scan", "loop"} if CASES[case][0] in SCANNED else {"plain"}
    assert check_kernels(cell, x, state) == own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_kernels_in_lower_precision(case: str, dtype: torch.dtype) -> None:
    cell, x, state = make(case)
    tolerance = 1e-5 if dtype == torch.float32 else 6e-2
    check_lower_precision(
        cell, x, state, dtype, tolerance, lambda weights: cell.kernels(weights).values()
    )


@pytest.mark.parametrize("case", CASES)
def test_two_windows_with_carried_state_equal_one_long_window(case: str) -> None:
    cell, x, state = make(case)
    check_windows_join(cell, x, state, [1, 4])


@pytest.mark.parametrize("case", ["mogrifier", "layer_norm_lstm", "lstmp", "slstm"])
def test_state_dropout_reaches_every_recurrent_product(case: str) -> None:
    """A state that is dropped whole leaves no trace of h_{t−1}."""
    cell, x, state = make(case)
    weights = {**cell.weights(), KEEP_H: torch.zeros(B, cell.output_size, dtype=torch.float64)}
    other = {**state, "h": state["h"] + 1}
    for way in (cell.reference, cell.loops(weights)["plain"]):
        here, _ = way(x[:1], state, weights)
        there, _ = way(x[:1], other, weights)
        assert_equal([here], [there])
        kept, _ = way(x[:1], other, cell.weights())
        assert not torch.allclose(here, kept)


def test_slstm_stays_finite_where_its_exponentials_do_not() -> None:
    cell, x, state = make("slstm, exponential", torch.float32)
    with torch.no_grad():
        cell.bias_ih[: 2 * H] = 200.0
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    y, after = cell.sequence(x, zeros, cell.weights())
    assert y.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in after.values())
    (gradient,) = torch.autograd.grad(y.sum(), [cell.weight_hh])
    assert gradient.isfinite().all()


def test_lstmp_equals_torch() -> None:
    """Its own kernel, which is only offered on a GPU, and the module."""
    cell, x, state = make("lstmp")
    theirs = torch.nn.LSTM(I, H, proj_size=3, bias=False).double()
    for name in ("weight_ih", "weight_hh", "weight_hr"):
        getattr(theirs, f"{name}_l0").data.copy_(cell.get_parameter(name).data)
    weights = {name: w for name, w in cell.weights().items() if not name.startswith("bias")}
    y, (h, c) = theirs(x, (state["h"][None], state["c"][None]))
    for way in (cell.reference, lstmp_by_torch):
        ours, after = way(x, state, weights)
        assert_equal([ours, after["h"], after["c"]], [y, h[0], c[0]])


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_linear_recurrence(steps: int, parallel: bool) -> None:
    draws = torch.Generator().manual_seed(1)
    a = torch.rand(steps, 2, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    b = torch.randn(steps, 2, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    start = torch.randn(2, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    h, wanted = start, []
    for t in range(steps):
        h = a[t] * h + b[t]
        wanted.append(h)
    found = linear_recurrence(a, b, start, parallel=parallel)
    assert_equal([found], [torch.stack(wanted)])
    assert torch.autograd.gradcheck(
        lambda *inputs: linear_recurrence(*inputs, parallel=parallel), (a, b, start)
    )
