"""What every cell is held to, whatever its equations: kernels, precision, windows that join."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lm.models.base import Cell, LayerState, Sequence


def gradients(
    cell: Cell, x: Tensor, state: LayerState, y: Tensor, after: LayerState
) -> list[Tensor]:
    """Gradients of a generic scalar of all outputs by weights, input and initial state."""
    ramp = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    scalar = (y * ramp).sum() + sum((t**2).sum() for t in after.values())
    inputs = [*cell.parameters(), x, *state.values()]
    found = torch.autograd.grad(scalar, inputs, allow_unused=True)
    return [torch.zeros(()) if gradient is None else gradient for gradient in found]


def assert_equal(left: Iterable[Tensor], right: Iterable[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype).expand_as(a), rtol=1e-10, atol=1e-10)


def check_kernels(cell: Cell, x: Tensor, state: LayerState) -> set[str]:
    """Each kernel equals the loop over `step` in value and gradient; their names."""
    slow, slow_state = cell.reference(x, state, cell.weights())
    wanted = gradients(cell, x, state, slow, slow_state)
    kernels = cell.kernels(cell.weights())
    for kernel in kernels.values():
        fast, fast_state = kernel(x, state, cell.weights())
        assert fast_state.keys() == slow_state.keys()
        assert_equal([fast, *fast_state.values()], [slow, *slow_state.values()])
        assert_equal(gradients(cell, x, state, fast, fast_state), wanted)
    return set(kernels)


def check_lower_precision(
    cell: Cell,
    x: Tensor,
    state: LayerState,
    dtype: torch.dtype,
    tolerance: float,
    ways: Callable[[dict[str, Tensor]], Iterable[Sequence]],
) -> None:
    """Against the steps in float64, with the weights rounded to the dtype of the products.

    Args:
        ways: what to check, given the weights in low precision.
    """
    exact = {k: w.detach().to(dtype).double().requires_grad_() for k, w in cell.weights().items()}
    y, after = cell.reference(x, state, exact)
    wanted = [y, *after.values(), *torch.autograd.grad(y.sum(), [*exact.values(), x])]
    low = {
        k: w.detach().to(dtype if w.ndim == 2 else torch.float32).requires_grad_()
        for k, w in exact.items()
    }
    begin = {k: t.detach().float() for k, t in state.items()}
    for way in ways(low):
        x_low = x.detach().float().requires_grad_()
        y, after = way(x_low, begin, low)
        found = [y, *after.values(), *torch.autograd.grad(y.float().sum(), [*low.values(), x_low])]
        assert all(t.dtype == torch.float32 for t in after.values())
        for a, b in zip(found, wanted, strict=True):
            scale = b.abs().amax()
            torch.testing.assert_close(a.double() / scale, b / scale, rtol=0, atol=tolerance)


def check_windows_join(cell: Cell, x: Tensor, state: LayerState, cuts: Iterable[int]) -> None:
    """Two windows with the state carried equal one; a state that is forgotten does not."""
    whole, end = cell.sequence(x, state, cell.weights())
    for cut in cuts:
        first, middle = cell.sequence(x[:cut], state, cell.weights())
        second, last = cell.sequence(x[cut:], middle, cell.weights())
        assert_equal([whole, *end.values()], [torch.cat([first, second]), *last.values()])
        fresh = {key: torch.zeros_like(t) for key, t in middle.items()}
        forgotten, _ = cell.sequence(x[cut:], fresh, cell.weights())
        assert not torch.allclose(second, forgotten)
