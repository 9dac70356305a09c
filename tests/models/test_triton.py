"""The Triton kernels equal the cells' equations.

Triton decides when it is imported whether its kernels are interpreted or compiled, and must not
decide for the other tests. So the `check_*` functions run in a process of their own: pytest on
this file, started by the `test_*` functions.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lm.models.base import Cell, LayerState
from lm.models.gru import GRU
from lm.models.kernels import triton_cells
from lm.models.lstm import LSTM
from lm.models.rnn import RNN, Nonlinearity
from lm.models.weights import Weights

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

needs_triton = pytest.mark.skipif(not triton_cells.available(), reason="triton is not installed")


def run_checks(**environment: str) -> None:
    """pytest, with the conftest of all tests, on the `check_*` functions of this file."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    inherited.pop("TRITON_INTERPRET", None)
    arguments = ["-o", "python_functions=check_*", "-p", "no:cacheprovider"]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, Path(__file__)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr


@needs_triton
def test_kernels_under_the_interpreter() -> None:
    run_checks(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_on_the_device() -> None:
    run_checks()


def test_importing_needs_no_triton_but_calling_does(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = [name for name in sys.modules if name.startswith("lm.models.kernels.triton_")]
    for name in {*loaded} - {triton_cells.__name__}:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not triton_cells.available()
    with pytest.raises(ImportError, match="triton"):
        triton_cells.rnn(
            torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1), None, "tanh"
        )


# From here on: inside the process that `run_checks` starts.

CELLS: dict[str, Callable[[int, int, int], Cell]] = {
    "lstm": lambda i, h, biases: LSTM(i, h, num_biases=biases),
    "gru": lambda i, h, biases: GRU(i, h, num_biases=biases),
    "tanh": lambda i, h, biases: RNN(i, h, num_biases=biases),
    "relu": lambda i, h, biases: RNN(i, h, nonlinearity=Nonlinearity.relu, num_biases=biases),
    "sigmoid": lambda i, h, biases: RNN(i, h, nonlinearity=Nonlinearity.sigmoid, num_biases=biases),
}
KERNELS = ("lstm", "gru", "tanh")  # relu and sigmoid are the third one's options
Run = Callable[[Tensor, LayerState, Weights], tuple[Tensor, LayerState]]

# T, B, I, H: one block; and several of units, of what is summed and (float32) of streams, the last
# of each not full.
SMALL, BLOCKS_FLOAT32, BLOCKS_BFLOAT16 = (3, 3, 7, 10), (2, 66, 5, 66), (2, 3, 5, 130)


def kernel(name: str) -> Run:
    """The kernel in the signature of `Cell.reference`."""

    def run(x: Tensor, state: LayerState, weights: Weights) -> tuple[Tensor, LayerState]:
        products = (weights["weight_ih"], weights["weight_hh"])
        biases = (weights.get("bias_ih"), weights.get("bias_hh"))
        if name == "gru":
            y, h = triton_cells.gru(x, state["h"], *products, *biases)
            return y, {"h": h}
        bias = biases[0] if biases[0] is None or biases[1] is None else biases[0] + biases[1]
        if name == "lstm":
            y, h, c = triton_cells.lstm(x, state["h"], state["c"], *products, bias)
            return y, {"h": h, "c": c}
        y, h = triton_cells.rnn(x, state["h"], *products, bias, name)
        return y, {"h": h}

    return run


def make(
    name: str, size: tuple[int, int, int, int], biases: int = 2
) -> tuple[Cell, Tensor, LayerState, dict[str, Tensor]]:
    """A cell, and float32 input, state and weights of about unit effect on the gates."""
    steps, streams, inputs, hidden = size
    draws = torch.Generator().manual_seed(hidden)
    cell = CELLS[name](inputs, hidden, biases)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=draws) * scale).to(DEVICE)

    weights = {
        key: normal(*p.shape, scale=p.shape[-1] ** -0.5 if p.dim() == 2 else 0.5)
        for key, p in cell.weights().items()
    }
    state = {key: normal(streams, hidden) for key in cell.state_names}
    return cell, normal(steps, streams, inputs), state, weights


def outputs_and_gradients(
    run: Run, x: Tensor, state: LayerState, weights: Weights
) -> dict[str, Tensor]:
    """All outputs, and the gradients of a generic scalar of them by all inputs."""
    leaf = lambda t: t.clone().requires_grad_()  # noqa: E731
    x, state = leaf(x), {k: leaf(t) for k, t in state.items()}
    weights = {k: leaf(t) for k, t in weights.items()}
    y, after = run(x, state, weights)
    ramp = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    ((y * ramp).sum() + sum((t**2).sum() for t in after.values())).backward()
    inputs = {"x": x, **state, **weights}
    results = {"y": y, **{f"{k}_T": t for k, t in after.items()}}
    return {**results, **{f"d_{k}": t.grad for k, t in inputs.items()}}


def in_dtype(tensors: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: t.to(dtype) for k, t in tensors.items()}


def check_the_sizes_take_several_blocks() -> None:
    from lm.models.kernels.triton_common import Geometry, choose_blocks

    for dtype, (steps, streams, _, hidden) in (
        (torch.float32, BLOCKS_FLOAT32),
        (torch.bfloat16, BLOCKS_BFLOAT16),
    ):
        blocks = choose_blocks(streams, hidden, dtype)
        units, rows = Geometry(steps, streams, hidden, blocks).grid
        assert units > 1
        assert hidden > blocks.depth
        assert rows > 1 or dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "biases", "size"),
    [(name, 2, SMALL) for name in CELLS]
    + [(name, biases, SMALL) for name in KERNELS for biases in (0, 1)]
    + [(name, 2, BLOCKS_FLOAT32) for name in KERNELS],
)
def check_float32_equals_the_equations(
    name: str, biases: int, size: tuple[int, int, int, int]
) -> None:
    cell, x, state, weights = make(name, size, biases)
    ours = outputs_and_gradients(kernel(name), x, state, weights)
    wide = (
        in_dtype({"x": x}, torch.float64)["x"],
        *(in_dtype(tensors, torch.float64) for tensors in (state, weights)),
    )
    exact = outputs_and_gradients(cell.reference, *wide)
    for key, value in exact.items():
        assert ours[key].dtype == torch.float32
        error = (ours[key] - value).abs().max() / value.abs().max()
        assert error < 5e-6, (key, error)


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, SMALL) for name in CELLS] + [("lstm", BLOCKS_BFLOAT16)],
)
def check_bfloat16_equals_the_equations(name: str, size: tuple[int, int, int, int]) -> None:
    cell, x, state, weights = make(name, size)
    matrices = {k: t.bfloat16() for k, t in weights.items() if k.startswith("weight")}
    ours = outputs_and_gradients(kernel(name), x, state, {**weights, **matrices})
    rounded = {**weights, **in_dtype(matrices, torch.float32)}
    exact = outputs_and_gradients(cell.reference, x, state, rounded)
    for key, value in exact.items():
        narrow = key == "y" or key.startswith("d_weight")
        assert ours[key].dtype == (torch.bfloat16 if narrow else torch.float32), key
        error = (ours[key] - value).norm() / value.norm()
        assert error < 0.01, (key, error)


@pytest.mark.parametrize("name", CELLS)
def check_two_bfloat16_windows_equal_one(name: str) -> None:
    """To the last bit: nothing is rounded between windows that is not rounded within one."""
    _, x, state, weights = make(name, SMALL)
    # Few bits, so that the input product is exact: torch sums it in another order for fewer rows.
    x = (4 * x).round() / 4
    weights["weight_ih"] = (16 * weights["weight_ih"]).round() / 16
    weights = {k: t.bfloat16() if k.startswith("weight") else t for k, t in weights.items()}
    run = kernel(name)
    with torch.no_grad():
        y, end = run(x, state, weights)
        first, middle = run(x[:2], state, weights)
        second, last = run(x[2:], middle, weights)
    assert torch.equal(torch.cat([first, second]), y)
    assert all(torch.equal(last[k], end[k]) for k in end)
    assert torch.equal(end["h"].bfloat16(), y[-1])
    assert not torch.equal(end["h"], y[-1].float())


@pytest.mark.parametrize(
    ("name", "key", "biases"), [("gru", "h", (0, 50)), ("lstm", "c", (-50, 50))]
)
def check_what_saturated_gates_keep_is_not_rounded(
    name: str, key: str, biases: tuple[float, float]
) -> None:
    """In bfloat16 too, the kept state passes through a window unchanged, and its gradient back."""
    _, x, state, weights = make(name, SMALL, 1)
    for gate, bias in enumerate(biases):
        weights["bias_ih"].unflatten(0, (-1, SMALL[3]))[gate] = bias
    weights = {k: t.bfloat16() if k.startswith("weight") else t for k, t in weights.items()}
    state[key].requires_grad_()
    _, after = kernel(name)(x, state, weights)
    assert torch.equal(after[key], state[key])
    ramp = torch.linspace(-1, 1, state[key].numel(), device=DEVICE).view_as(state[key])
    (gradient,) = torch.autograd.grad((after[key] * ramp).sum(), state[key])
    assert torch.equal(gradient, ramp)


@pytest.mark.parametrize("name", KERNELS)
def check_gradients_of_any_layout_and_of_a_single_output(name: str) -> None:
    """The gradient of a plain sum is an expanded scalar; that of an unused output is absent."""
    cell, x, state, weights = make(name, SMALL)
    for pick in (lambda y, after: y, lambda y, after: after["h"]):
        found = []
        for run in (kernel(name), cell.reference):
            h = state["h"].clone().requires_grad_()
            output = pick(*run(x, {**state, "h": h}, weights))
            found.append(torch.autograd.grad(output.sum(), h)[0])
        assert (found[0] - found[1]).abs().max() < 5e-6 * found[1].abs().max()


@pytest.mark.parametrize("name", CELLS)
def check_nan_stays_visible_in_its_own_stream(name: str) -> None:
    _, x, state, weights = make(name, SMALL)
    x[1, 0, 0] = torch.nan
    y, _ = kernel(name)(x, state, weights)
    assert y[1:, 0].isnan().all()
    assert y[0].isfinite().all()
    assert y[:, 1:].isfinite().all()


def check_tanh_is_accurate_at_any_magnitude() -> None:
    x = torch.tensor([0.0, 1e-30, 1e-4, 0.1, 0.199, 0.201, 0.5, 3.0, 20.0, 1e4, torch.inf])
    x = torch.cat([x, -x]).to(DEVICE)
    zero, one = torch.zeros(1, 1, device=DEVICE), torch.ones(1, 1, device=DEVICE)
    y, _ = triton_cells.rnn(x[None, :, None], zero.expand(len(x), 1), one, zero, None, "tanh")
    assert ((y.view(-1) - x.tanh()).abs() <= 2e-6 * x.tanh().abs()).all()


@pytest.mark.parametrize("name", KERNELS)
def check_a_window_without_steps_is_refused(name: str) -> None:
    _, x, state, weights = make(name, SMALL)
    with pytest.raises(AssertionError, match="at least one step"):
        kernel(name)(x[:0], state, weights)
