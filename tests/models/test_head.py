"""The chunked loss equals cross-entropy in value and gradient, whatever the chunks."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lm.models.embedding import TiedGradient, embed
from lm.models.head import SoftmaxHead
from lm.models.kernels import native_loss, native_softmax, nll
from lm.models.kernels.nll import linear_loss, linear_nll
from lm.runtime.compute import Compute, Kernels

N, F, V = 13, 5, 7


def inputs(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(N, F, dtype=dtype, generator=draws).mul_(scale).requires_grad_()
    w = torch.randn(V, F, dtype=dtype, generator=draws, requires_grad=True)
    b = torch.randn(V, dtype=dtype, generator=draws, requires_grad=True)
    return x, w, b, torch.randint(V, (N,), generator=draws)


@pytest.fixture(params=["rows in C", "rows", "rows and words", "rows, in torch"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Several chunks of rows, several blocks in each; in low precision also chunks of words.

    Products and all else happen in C, or the point-wise work only, or nothing, as without a
    compiler.
    """
    if request.param != "rows in C":
        monkeypatch.setattr(native_loss, "can_run", lambda weight, dtype: False)
    if "torch" in request.param:
        monkeypatch.setattr(native_softmax, "can_run", lambda logits, nll: False)
    monkeypatch.setattr(nll, "LEAST_COLUMN_BYTES", 4 * 8)
    monkeypatch.setattr(nll, "PART_BYTES", 3 * F * 2)
    monkeypatch.setattr(nll, "CHUNK_BYTES", 3 * F * 2 if "words" in request.param else V * F * 2)
    monkeypatch.setattr(nll, "BLOCK_ELEMENTS", 2 * V)
    monkeypatch.setattr(nll, "BLOCK_ROWS", 2)
    return str(request.param)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_share", [True, False])
def test_equals_cross_entropy(chunked: str, with_bias: bool, with_share: bool) -> None:
    x, w, b, y = inputs()
    bias = b if with_bias else None
    wanted = [x, w, b] if with_bias else [x, w]
    share = torch.linspace(0.1, 2, N, dtype=torch.float64) if with_share else None
    objective, ours = linear_loss(x, w, bias, y, share=share)
    theirs = cross_entropy(linear(x, w, bias), y, reduction="none")
    total = theirs.mean() if share is None else (theirs * share).sum()
    close = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(ours, theirs.detach(), **close)
    torch.testing.assert_close(linear_nll(x, w, bias, y), theirs.detach(), **close)
    torch.testing.assert_close(objective, total, **close)
    for factor in (1.0, 0.5):
        for a, c in zip(
            torch.autograd.grad(factor * linear_loss(x, w, bias, y, share=share)[0], wanted),
            torch.autograd.grad(factor * total, wanted, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, c, **close)


def test_a_target_that_is_no_word_is_an_error(chunked: str) -> None:
    """And nothing is read or written beyond the logits."""
    x, w, b, y = inputs()
    for wrong in (-1, V):
        with pytest.raises((IndexError, RuntimeError)):
            linear_loss(x, w, b, torch.full_like(y, wrong))


def test_a_nan_reaches_the_loss(chunked: str) -> None:
    x, w, b, y = inputs(torch.float32)
    with torch.no_grad():
        b[3] = float("nan")
    objective, nll = linear_loss(x, w, b, y)
    assert objective.isnan()
    assert nll.isnan().all()


def test_gradcheck(chunked: str) -> None:
    x, w, b, y = inputs()
    assert torch.autograd.gradcheck(lambda *z: linear_loss(*z, y)[0], (x, w, b))


def test_improbable_targets_keep_their_nll(chunked: str) -> None:
    """Their probability underflows in float32, −log p must not become infinite."""
    x, w, b, y = inputs(torch.float32, scale=400.0)
    exact = cross_entropy(linear(x.double(), w.double(), b.double()), y, reduction="none")
    assert float(exact.detach().max()) > 200
    torch.testing.assert_close(linear_nll(x, w, b, y), exact.float().detach(), rtol=1e-4, atol=1e-2)
    objective, found = linear_loss(x, w, b, y)
    torch.testing.assert_close(found, exact.float().detach(), rtol=1e-4, atol=1e-2)
    assert all(g.isfinite().all() for g in torch.autograd.grad(objective, [x, w, b]))


def test_products_in_bf16(chunked: str) -> None:
    """Against float64 on the rounded operands; gradients come back in float32."""
    x, w, b, y = inputs(torch.float32)
    objective, found = linear_loss(x, w, b, y, dtype=torch.bfloat16)
    gradients = torch.autograd.grad(objective, [x, w, b])
    exact = [t.detach().bfloat16().double().requires_grad_() for t in (x, w)]
    bias = b.detach().double().requires_grad_()
    theirs = cross_entropy(linear(*exact, bias), y, reduction="none")
    wanted = torch.autograd.grad(theirs.mean(), [*exact, bias])
    torch.testing.assert_close(found.double(), theirs.detach(), rtol=0, atol=3e-2)
    for a, c in zip(gradients, wanted, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), c, rtol=0, atol=1e-2 * float(c.abs().max()))


def test_the_whole_logits_are_never_in_memory(
    chunked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.ndim == 2 and set(result.shape) != {F, V}:
                largest = max(largest, result.numel())
            return result

    x, w, b, y = inputs()
    with Watch():
        linear_loss(x, w, b, y)[0].backward()
    assert 0 < largest <= max(4 * N, 4 * V, N * F)
    assert largest < N * V


@pytest.mark.parametrize("sparse", [False, True])
def test_embedding_gradient(sparse: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    w = torch.randn(V, F, dtype=torch.float64, generator=draws, requires_grad=True)
    tokens = torch.tensor([[1, 3], [1, 6], [0, 1]])
    ramp = torch.linspace(-1, 1, tokens.numel() * F, dtype=torch.float64).view(3, 2, F)
    (ours,) = torch.autograd.grad((embed(tokens, w, sparse=sparse) * ramp).sum(), [w])
    (theirs,) = torch.autograd.grad((w[tokens] * ramp).sum(), [w])
    assert ours.is_sparse == sparse
    torch.testing.assert_close(ours.to_dense() if sparse else ours, theirs)


def test_tied_gradient_is_the_sum_of_both_uses(chunked: str) -> None:
    _, w, b, y = inputs()
    tokens = torch.arange(N) % V

    def objective(fast: bool) -> Tensor:
        tied = TiedGradient() if fast else None
        x = embed(tokens, w, tied=tied).tanh()
        return linear_loss(x, w, b, y, tied=tied)[0] if fast else cross_entropy(
            linear(w[tokens].tanh(), w, b), y
        )  # fmt: skip

    for a, c in zip(
        torch.autograd.grad(3 * objective(True), [w, b]),
        torch.autograd.grad(3 * objective(False), [w, b]),
        strict=True,
    ):
        torch.testing.assert_close(a, c, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kernels", Kernels)
def test_the_way_is_measured_once_unless_it_is_torch_s(kernels: Kernels) -> None:
    head = SoftmaxHead(F, V, tied=None, bias=True)
    for parameter in head.parameters():
        parameter.data.fill_(0.1)
    head.compute = Compute(kernels=kernels)
    objectives = [head.loss(torch.ones(N, F), torch.arange(N) % V)[0] for _ in range(2)]
    taken = head.compute.choices.taken
    if kernels in (Kernels.torch, Kernels.reference):
        assert taken == {}
    else:
        (question,) = taken
        assert taken[question] in ("native", "torch")
        taken[question] = "torch"
        x, y = torch.ones(N, F), torch.arange(N) % V
        assert head._way(x, head.weight, head.bias, y, torch.float32) is nll.through_logits
    for objective in objectives:
        assert objective.item() == pytest.approx(math.log(V), rel=1e-6)
