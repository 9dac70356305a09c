"""The sampled softmax: exact where it samples everything, unbiased where it does not."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lm.errors import ConfigError
from lm.models.embedding import TiedGradient, embed
from lm.models.init import InitConfig, PartInit, Scheme
from lm.models.kernels.sampled import Sample, sampled_loss
from lm.models.lstm import LSTMConfig
from lm.models.sampled import SampledConfig, Sampler
from lm.runtime.randomness import Noise

N, F, V = 9, 4, 12
CPU = torch.device("cpu")
COUNTS = torch.tensor([50, 3, 0, 7, 7, 1, 20, 2, 2, 9, 1, 4])


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(N, F, dtype=dtype, generator=draws, requires_grad=True)
    w = torch.randn(V, F, dtype=dtype, generator=draws, requires_grad=True)
    b = torch.randn(V, dtype=dtype, generator=draws, requires_grad=True)
    return x, w, b, torch.randint(V, (N,), generator=draws)


def whole(dtype: torch.dtype = torch.float64) -> Sample:
    order = torch.arange(V).flip(0)
    return Sample(order, torch.zeros(V, dtype=dtype), order.argsort())


def some() -> Sample:
    words = torch.tensor([7, 0, 3])
    column = torch.full((V,), -1)
    column[words] = torch.arange(3)
    return Sample(words, torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64), column)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_the_whole_vocabulary_as_sample_gives_cross_entropy(with_bias: bool, sparse: bool) -> None:
    x, w, b, y = inputs()
    bias = b if with_bias else None
    wanted = [x, w, b] if with_bias else [x, w]
    objective, nll = sampled_loss(x, w, bias, y, whole(), sparse=sparse)
    theirs = cross_entropy(linear(x, w, bias), y, reduction="none")
    torch.testing.assert_close(nll, theirs.detach())
    for ours, other in zip(
        torch.autograd.grad(2 * objective, wanted),
        torch.autograd.grad(2 * theirs.mean(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours.to_dense() if ours.is_sparse else ours, other)


def test_a_sample_by_its_definition() -> None:
    """Own word once and exactly, every other drawn word by its weight, the rest not at all."""
    x, w, b, y = inputs()
    sample = some()
    logits = linear(x, w, b)
    expected = []
    for z, own in zip(logits, y.tolist(), strict=True):
        others = [(k, u) for k, u in zip([7, 0, 3], [1.0, 0.0, 0.5], strict=True) if k != own]
        total = z[own].exp() + sum((z[k] + u).exp() for k, u in others)
        expected.append(total.log() - z[own])
    objective, nll = sampled_loss(x, w, b, y, sample)
    torch.testing.assert_close(nll, torch.stack(expected).detach())
    mean = torch.stack(expected).mean()
    for ours, theirs in zip(
        torch.autograd.grad(objective, [x, w, b]),
        torch.autograd.grad(mean, [x, w, b]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradcheck() -> None:
    x, w, b, y = inputs()
    assert torch.autograd.gradcheck(lambda *z: sampled_loss(*z, y, some())[0], (x, w, b))


@pytest.mark.parametrize("sparse", [True, False])
def test_tied_gradient_is_the_sum_of_both_uses(sparse: bool) -> None:
    _, w, b, y = inputs()
    tokens = torch.arange(N) % V
    tied = TiedGradient()
    x = embed(tokens, w, tied=tied, sparse=sparse).tanh()
    objective, _ = sampled_loss(x, w, b, y, whole(), tied=tied, sparse=sparse)
    (ours,) = torch.autograd.grad(objective, [w])
    (theirs,) = torch.autograd.grad(cross_entropy(linear(w[tokens].tanh(), w, b), y), [w])
    assert ours.is_sparse == sparse
    torch.testing.assert_close(ours.to_dense() if sparse else ours, theirs)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_estimates_of_sums_over_the_vocabulary_are_unbiased(power: float) -> None:
    values = torch.linspace(0.5, 3, V, dtype=torch.float64)
    sampler = Sampler(COUNTS, 2, 4, power)
    total, rounds = 0.0, 4000
    for step in range(rounds):
        sample = sampler.draw(Noise(1, step, 1), CPU)
        assert len(sample.words.unique()) == 6
        assert sample.words[:2].tolist() == [0, 6]  # the most frequent, with weight one
        assert sample.log_weight[:2].tolist() == [0, 0]
        assert torch.equal(sample.column[sample.words], torch.arange(6))
        total += float((values[sample.words] * sample.log_weight.double().exp()).sum())
    assert total / rounds == pytest.approx(float(values.sum()), rel=0.02)


def test_a_model_samples_in_training_and_not_in_evaluation() -> None:
    config = LSTMConfig(
        embedding_size=6,
        hidden_size=6,
        tied=True,
        sampled=SampledConfig(words=3, frequent=2),
        init=InitConfig(output_bias=PartInit(kind=Scheme.unigram)),
    )
    model, plain = config.build(V, seed=1, counts=COUNTS), config.build(V, seed=1)
    smoothed = (COUNTS + 0.5) / (COUNTS + 0.5).sum()
    assert model.head.bias is not None
    torch.testing.assert_close(model.head.bias.exp(), smoothed)
    plain.load_state_dict(model.state_dict())
    tokens = torch.arange(8).view(4, 2)
    first = model(tokens, tokens, noise=Noise(1, 0, 2))
    again = model(tokens, tokens, noise=Noise(1, 0, 2))
    other = model(tokens, tokens, noise=Noise(1, 1, 2))
    assert torch.equal(first.nll, again.nll)
    assert not torch.equal(first.nll, other.nll)
    with torch.no_grad():
        assert torch.equal(model(tokens, tokens).nll, plain(tokens, tokens).nll)
    model.sparse_gradients = True
    model(tokens, tokens, noise=Noise(1, 0, 2)).objective.backward()
    assert model.embedding.weight.grad is not None
    assert model.embedding.weight.grad.is_sparse


def test_a_sample_as_large_as_the_vocabulary_is_the_whole_softmax() -> None:
    assert SampledConfig(words=3, frequent=9).build(COUNTS) is None
    assert SampledConfig(words=3, frequent=8).build(COUNTS) is not None
    assert SampledConfig(words=None).build(COUNTS) is None
    assert SampledConfig(words=3, frequent=8).build(None) is None


@pytest.mark.parametrize("part", ["embedding", "recurrent", "bias"])
def test_only_the_output_bias_knows_frequencies(part: str) -> None:
    with pytest.raises(ConfigError, match="only the output bias"):
        InitConfig(**{part: PartInit(kind=Scheme.unigram)})
