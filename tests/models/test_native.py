"""The compiled kernels where sizes are awkward: parts of vectors, several tiles, several threads.

That they equal the equations is tested with all other kernels in `test_cells` and `test_head`.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lm.models.base import Cell
from lm.models.gru import GRU
from lm.models.kernels import native, native_loss, native_softmax
from lm.models.kernels.native_gemm import multiply
from lm.models.lstm import LSTM
from lm.models.rnn import RNN, Nonlinearity

# Operands, and the greatest relative error against the equations in float64.
PRECISIONS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
# T, B, I, H: fewer and more than a tile of rows; H within one vector, odd, and of many groups.
SIZES = [(1, 1, 1, 1), (3, 2, 4, 16), (4, 7, 5, 33), (3, 13, 6, 130)]
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("operands", PRECISIONS, ids=str)
def test_the_kernels_are_compiled_here(operands: torch.dtype) -> None:
    assert native.library(operands) is not None, "no C compiler: the tests need cc or gcc"


def outcome(
    cell: Cell, size: tuple[int, int, int, int], operands: torch.dtype, kernel: str
) -> list[Tensor]:
    """Outputs, final state and all gradients of a generic scalar, from the same numbers."""
    steps, streams, inputs, hidden = size
    draws = torch.Generator().manual_seed(1)
    real = torch.float64 if operands == torch.float64 else torch.float32
    exact = kernel == "reference"

    def leaf(*shape: int, scale: float, product: bool) -> Tensor:
        values = torch.randn(shape, generator=draws, dtype=torch.float64).mul_(scale)
        if product:
            values = values.to(operands)
        return values.to(torch.float64 if exact else operands if product else real)

    weights = {
        name: leaf(*p.shape, scale=hidden**-0.5, product=p.ndim == 2).requires_grad_()
        for name, p in cell.named_parameters()
    }
    x = leaf(steps, streams, inputs, scale=1.0, product=True).requires_grad_()
    state = {
        name: leaf(streams, hidden, scale=0.5, product=False).requires_grad_()
        for name in cell.state_names
    }
    run = cell.reference if exact else cell.kernels(weights)[kernel]
    y, after = run(x, state, weights)
    scalar = (y.double() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
    scalar = scalar + sum((t.double() ** 2).sum() for t in after.values())
    leaves = [x, *state.values(), *weights.values()]
    return [y, *after.values(), *torch.autograd.grad(scalar, leaves)]


@pytest.mark.parametrize("operands", PRECISIONS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_cells_of_any_size(
    name: str, size: tuple[int, int, int, int], operands: torch.dtype, two_threads: None
) -> None:
    cell = CELLS[name](*size[2:])
    wanted = outcome(cell, size, operands, "reference")
    for a, b in zip(outcome(cell, size, operands, "native"), wanted, strict=True):
        error = (a.double() - b).abs().amax() / b.abs().amax().clamp_min(1e-3)
        assert error < PRECISIONS[operands]


@pytest.mark.parametrize("name", CELLS)
def test_threads_do_not_change_a_bit(name: str) -> None:
    size = (5, 9, 7, 70)
    cell = CELLS[name](*size[2:])
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(outcome(cell, size, torch.float32, "native"))
    torch.set_num_threads(1)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_more_threads_than_groups_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (2, 2, 3, 4)
    cell = LSTM(*size[2:])
    torch.set_num_threads(4)
    many = outcome(cell, size, torch.float32, "native")
    torch.set_num_threads(1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(many, outcome(cell, size, torch.float32, "native"), strict=True)
    )


@pytest.mark.parametrize("nonlinearity", Nonlinearity)
def test_point_wise_functions(nonlinearity: Nonlinearity) -> None:
    """To the last bits over the whole range, and what lies beyond it."""
    ramp = torch.cat([torch.linspace(-100, 100, 20_001), torch.logspace(-12, 0, 500).mul(-1)])
    special = torch.tensor([0.0, -0.0, 1e-30, 3e38, -3e38, float("inf"), -float("inf")])
    a = torch.cat([ramp, special])
    parts = []
    for part in a.split(512):
        size = len(part)
        weights = {
            "weight_ih": torch.zeros(size, 1),
            "weight_hh": torch.zeros(size, size),
            "bias_ih": part,
            "bias_hh": torch.zeros(size),
        }
        kernel = RNN(1, size, nonlinearity=nonlinearity).kernels(weights)["native"]
        y, _ = kernel(torch.zeros(1, 1, 1), {"h": torch.zeros(1, size)}, weights)
        parts.append(y.flatten().double())
    exact = getattr(torch, nonlinearity.value)(a.double())
    torch.testing.assert_close(torch.cat(parts), exact, rtol=4e-7, atol=1e-37)


@pytest.mark.parametrize("name", CELLS)
def test_a_nan_goes_through(name: str) -> None:
    cell = CELLS[name](3, 20)
    weights = {k: p.detach().normal_(0, 0.1) for k, p in cell.named_parameters()}
    x = torch.zeros(2, 2, 3)
    x[0, 1, 0] = float("nan")
    state = {k: torch.zeros(2, 20) for k in cell.state_names}
    y, after = cell.kernels(weights)["native"](x, state, weights)
    assert y[:, 1].isnan().all()
    assert all(t[1].isnan().all() and t[0].isfinite().all() for t in after.values())


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 16), (4, 100), (3, 9_001)])
def test_softmax_loss(rows: int, columns: int, dtype: torch.dtype, two_threads: None) -> None:
    draws = torch.Generator().manual_seed(rows)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    logits = torch.randn(rows, columns, generator=draws).mul_(4).to(dtype)
    bias = torch.randn(columns, generator=draws).to(real)
    targets = torch.randint(columns, (rows,), generator=draws)
    share = torch.rand(rows, generator=draws).to(real)
    z = (logits.double() + bias.double()).requires_grad_()
    wanted = -z.log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    (wanted * share.double()).sum().backward()
    assert z.grad is not None

    untouched, nll = logits.clone(), torch.empty(rows, dtype=real)
    native_softmax.to_gradient(untouched, bias, targets, nll, None, None)
    torch.testing.assert_close(nll.double(), wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(untouched, logits)

    d_bias = torch.ones(columns, dtype=real)
    native_softmax.to_gradient(logits, bias, targets, nll, share, d_bias)
    rounding = 4e-3 if dtype == torch.bfloat16 else 4e-6
    torch.testing.assert_close(logits.double(), z.grad, rtol=rounding, atol=1e-7)
    torch.testing.assert_close(d_bias.double(), 1 + z.grad.sum(0), rtol=1e-6, atol=1e-6)


def test_softmax_loss_of_far_logits() -> None:
    """No overflow, and an improbable target keeps its nats."""
    logits = torch.tensor([[300.0, -300.0, 299.0]])
    nll = torch.empty(1)
    native_softmax.to_gradient(logits.clone(), None, torch.tensor([1]), nll, None, None)
    exact = -logits.double().log_softmax(1)[0, 1]
    assert abs(nll.item() - exact.item()) < 1e-4


@pytest.mark.parametrize("name", CELLS)
def test_what_c_reads_is_brought_into_shape(name: str) -> None:
    """Expanded, transposed and half-precision tensors are what their values are."""
    cell = CELLS[name](3, 5, num_biases=1)
    weights = {k: p.detach().normal_(0, 0.3).bfloat16() for k, p in cell.named_parameters()}
    odd = {k: w.T.contiguous().T if w.ndim == 2 else w for k, w in weights.items()}
    even = {k: w if w.ndim == 2 else w.float() for k, w in weights.items()}
    x, row = torch.randn(4, 2, 3).bfloat16(), torch.randn(5).bfloat16()
    run = cell.kernels(weights)["native"]
    strange = run(x.transpose(0, 1).contiguous().transpose(0, 1), {
        k: row.expand(2, 5) for k in cell.state_names
    }, odd)  # fmt: skip
    usual = run(x, {k: row.float().repeat(2, 1) for k in cell.state_names}, even)
    assert torch.equal(strange[0], usual[0])
    for key in cell.state_names:
        assert torch.equal(strange[1][key].float(), usual[1][key])


# M, N, K: one element, parts of tiles and vectors, several blocks of rows and of K.
PRODUCTS = [(1, 1, 1), (5, 16, 3), (7, 33, 65), (70, 90, 131), (40, 130, 3_000), (1_000, 100, 701)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", PRODUCTS, ids=str)
def test_products(
    size: tuple[int, int, int], transposed: bool, dtype: torch.dtype, threads: int
) -> None:
    """Into a part of a wider matrix, whose other columns stay."""
    rows, columns, inner = size
    draws = torch.Generator().manual_seed(rows)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    a = torch.randn(inner, rows, generator=draws).to(dtype)
    a = a if transposed else a.T.contiguous()
    b = torch.randn(inner, columns + 2, generator=draws).to(real)[:, 1:-1]
    factors = torch.randn(inner, generator=draws).to(real)
    left = (a.T if transposed else a).double()
    product, sums = left @ b.to(dtype).double(), left @ factors.double()
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    close = {"rtol": tolerance, "atol": tolerance * inner**0.5}
    torch.set_num_threads(threads)
    for add in (False, True):
        whole, found = torch.ones(rows, columns + 3, dtype=real), torch.ones(rows, dtype=real)
        more = {"factors": factors, "sums": found} if transposed else {}
        multiply(a, b, whole[:, :columns], transposed=transposed, add=add, **more)
        torch.testing.assert_close(whole[:, :columns].double(), product + add, **close)
        assert (whole[:, columns:] == 1).all()
        if transposed:
            torch.testing.assert_close(found.double(), sums + add, **close)
    torch.set_num_threads(1)


def loss_of(
    dtype: torch.dtype, rows: int, words: int, features: int, scale: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """nll and gradients by the compiled kernels, and in float64 on the rounded operands."""
    draws = torch.Generator().manual_seed(words)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(rows, features, generator=draws).to(dtype)
    weight = torch.randn(words, features, generator=draws).mul_(scale * features**-0.5).to(real)
    bias, share = torch.randn(words, generator=draws).to(real), torch.rand(rows, generator=draws)
    share = share.to(real)
    exact = [t.double().requires_grad_() for t in (x, weight.to(dtype), bias)]
    logits = exact[0] @ exact[1].T + exact[2]
    # Likely words: their share / Z and share nearly cancel.
    targets = logits.argmax(1) if scale > 1 else torch.randint(words, (rows,), generator=draws)
    wanted = -logits.log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    gradients = torch.autograd.grad((wanted * share.double()).sum(), exact)
    chunks = [slice(k, min(k + 30, rows)) for k in range(0, rows, 30)]
    found = native_loss.loss_and_gradients(x, weight, bias, targets, share, chunks)
    assert found is not None
    return [t for t in found if t is not None], [wanted.detach(), *gradients]


LOSSES = [(1, 2, 1), (5, 16, 7), (40, 100, 33), (70, 1_000, 200), (13, 9_001, 65)]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("size", LOSSES, ids=str)
def test_loss_with_its_products(
    size: tuple[int, int, int], dtype: torch.dtype, two_threads: None
) -> None:
    found, wanted = loss_of(dtype, *size)
    close = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 1e-2}[dtype]
    exact = 1e-11 if dtype == torch.float64 else 2e-5  # logits are never rounded
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=exact, atol=exact)
    for a, b in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=close, atol=close * float(b.abs().max()))


def test_gradient_of_what_is_nearly_certain() -> None:
    """p − 1 is small there; rounding the features must not leave more than it."""
    found, wanted = loss_of(torch.bfloat16, 20, 50, 64, scale=40.0)
    assert float(wanted[0].median()) < 1e-3
    for a, b in zip(found[1:3], wanted[1:3], strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-2


def test_threads_do_not_change_a_bit_of_the_loss() -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(loss_of(torch.float32, 40, 3_000, 70)[0])
    torch.set_num_threads(1)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_word_beyond_the_range_is_left_to_others() -> None:
    """exp(z − z_own) would overflow; `lm.models.kernels.nll` then takes its other way."""
    weight, share = torch.tensor([[100.0], [0.0]]), torch.ones(1)
    for target, in_range in ((0, True), (1, False)):
        found = native_loss.loss_and_gradients(
            torch.ones(1, 1), weight, None, torch.tensor([target]), share, [slice(0, 1)]
        )
        assert (found is not None) == in_range
