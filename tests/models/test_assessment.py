"""Surprisal, entropy and rank of rows of logits, in C and in torch, for every head."""

import pytest
import torch

from lm.models import CELLS
from lm.models.assessment import of_log_prob, of_softmax
from lm.models.kernels import native_assess
from lm.models.recurrent_config import HeadKind


def problem(rows: int, vocab_size: int) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(rows)
    x, w = torch.randn(rows, 6, generator=draws), torch.randn(vocab_size, 6, generator=draws)
    targets = torch.randint(0, vocab_size, (rows,), generator=draws)
    return x, w, torch.randn(vocab_size, generator=draws), targets


def compiled(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    if native and not native_assess.can_run(torch.zeros(1, 1)):
        pytest.skip("no compiler here")
    if not native:
        monkeypatch.setattr(native_assess, "can_run", lambda logits: False)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 1), (7, 13), (40, 257), (3, 9001)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_softmax(
    rows: int, vocab_size: int, bias: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(monkeypatch, native)
    x, w, b, targets = problem(rows, vocab_size)
    found = of_softmax(x, w, b if bias else None, targets)
    p = (x.double() @ w.double().T + (b if bias else 0)).softmax(-1)
    own = p.gather(1, targets[:, None])
    torch.testing.assert_close(found.nll.double(), -own.log()[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropy.double(), -(p * p.log()).sum(1), rtol=1e-5, atol=1e-5)
    assert found.rank.tolist() == (1 + (p > own).sum(1)).tolist()


@pytest.mark.parametrize("native", [True, False])
def test_what_cannot_come_and_what_is_certain(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 · log 0 is 0; ties share the best rank; a word far below the others has a finite cost."""
    compiled(monkeypatch, native)
    logits = torch.tensor([[-torch.inf, 0, 0, -200], [-torch.inf, -torch.inf, 5, -torch.inf]])
    targets = torch.tensor([3, 2])
    if native:
        nll, entropy = torch.empty(2, 2)
        rank = torch.empty(2, dtype=torch.int64)
        native_assess.assess(logits, None, targets, nll, entropy, rank)
    else:
        found = of_log_prob(logits.log_softmax(-1), targets)
        nll, entropy, rank = found.nll, found.entropy, found.rank
    torch.testing.assert_close(nll, torch.tensor([200.693147, 0.0]))
    torch.testing.assert_close(entropy, torch.tensor([0.693147, 0.0]))
    assert rank.tolist() == [3, 1]
    tied = of_log_prob(torch.zeros(1, 4).log_softmax(-1), torch.tensor([2]))
    assert tied.rank.item() == 1


def test_a_target_outside_the_vocabulary_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(monkeypatch, native=True)
    logits, numbers = torch.zeros(1, 4), torch.empty(1)
    with pytest.raises(IndexError, match="targets from 4 to 4"):
        native_assess.assess(
            logits, None, torch.tensor([4]), numbers, numbers, torch.empty(1, dtype=torch.int64)
        )


@pytest.mark.parametrize("head", HeadKind)
def test_every_head_agrees_with_its_own_distribution(head: HeadKind) -> None:
    config = CELLS["lstm"](embedding_size=6, hidden_size=9, head=head)
    model = config.build(31, seed=2).requires_grad_(False)
    draws = torch.Generator().manual_seed(1)
    block = torch.randint(0, 31, (6, 3), generator=draws)
    found = model.assess(block[:-1], block[1:])
    log_prob, state = model.log_prob(block[:-1])
    wanted = of_log_prob(log_prob, block[1:])
    for name in ("nll", "entropy", "rank"):
        torch.testing.assert_close(getattr(found.expected, name), getattr(wanted, name))
    torch.testing.assert_close(found.state[0]["c"], state[0]["c"])
    torch.testing.assert_close(found.expected.nll, model(block[:-1], block[1:]).nll)
