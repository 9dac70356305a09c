"""The chunked loss equals cross-entropy in value and gradient, whatever the chunks."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from lm.models import head
from lm.models.head import linear_nll


def inputs(n: int = 13, f: int = 5, v: int = 7) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, f, dtype=torch.float64, generator=draws, requires_grad=True)
    w = torch.randn(v, f, dtype=torch.float64, generator=draws, requires_grad=True)
    b = torch.randn(v, dtype=torch.float64, generator=draws, requires_grad=True)
    return x, w, b, torch.randint(v, (n,), generator=draws)


@pytest.mark.parametrize("elements", [1, 7, 21, 10_000])
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_cross_entropy(
    elements: int, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", elements)
    x, w, b, y = inputs()
    bias = b if with_bias else None
    wanted = [x, w, b] if with_bias else [x, w]
    weighting = torch.linspace(0.1, 2, len(y), dtype=torch.float64)
    ours = linear_nll(x, w, bias, y)
    theirs = cross_entropy(linear(x, w, bias), y, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, c in zip(
        torch.autograd.grad((ours * weighting).sum(), wanted),
        torch.autograd.grad((theirs * weighting).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-10)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 21)
    x, w, b, y = inputs()
    assert torch.autograd.gradcheck(lambda *z: linear_nll(*z, y), (x, w, b))


def test_the_whole_logits_are_never_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    whole = head._nll_of_chunk

    def watched(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nll, p = whole(*arguments)
        sizes.append(p.numel())
        return nll, p

    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 21)
    monkeypatch.setattr(head, "_nll_of_chunk", watched)
    x, w, b, y = inputs()
    linear_nll(x, w, b, y).sum().backward()
    assert max(sizes) <= 21
    assert sum(sizes) == 2 * 13 * 7  # once forward, once backward


def test_large_logits_do_not_overflow() -> None:
    x = torch.tensor([[1e4]], dtype=torch.float32)
    w = torch.tensor([[1.0], [-1.0]])
    assert linear_nll(x, w, None, torch.tensor([0])).tolist() == [0.0]
    assert linear_nll(x, w, None, torch.tensor([1])).tolist() == [2e4]
