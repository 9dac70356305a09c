"""Adaptive softmax and mixture of softmaxes: distributions, their loss and its gradient."""

import pytest
import torch
from torch import Tensor

from lm.errors import CheckpointError, ConfigError
from lm.models import CELLS, RecurrentModel
from lm.models.adaptive import AdaptiveConfig, AdaptiveHead
from lm.models.dropout import DropoutConfig
from lm.models.kernels.nll import row_nll
from lm.models.mixture import MixtureConfig, MixtureHead
from lm.models.recurrent_config import HeadKind
from lm.runtime.randomness import Noise

V, T, B, E, H = 29, 5, 4, 6, 8
COUNTS = torch.tensor([(k * 37) % 101 for k in range(V)])

ADAPTIVE = {"head": HeadKind.adaptive, "adaptive": AdaptiveConfig(cutoffs=[4, 13], divisor=2.0)}
EVEN = {"head": HeadKind.adaptive, "adaptive": AdaptiveConfig(cutoffs=[4, 13], divisor=1.0)}
MIXTURE = {"head": HeadKind.mixture, "mixture": MixtureConfig(experts=3)}
HEADS: dict[str, dict[str, object]] = {
    "adaptive": ADAPTIVE,
    "adaptive, one size": EVEN,
    "adaptive, tied": {**EVEN, "tied": True},
    "adaptive, tied, no bias": {**EVEN, "tied": True, "output_bias": False},
    "mixture": MIXTURE,
    "mixture of another size": {**MIXTURE, "mixture": MixtureConfig(experts=3, size=7)},
    "mixture, tied": {**MIXTURE, "tied": True},
    "mixture of one": {**MIXTURE, "mixture": MixtureConfig(experts=1)},
}


def build(name: str, **fields: object) -> RecurrentModel:
    config = CELLS["lstm"](embedding_size=E, hidden_size=H, **{**HEADS[name], **fields})
    return config.build(V, seed=1, counts=COUNTS).double()


def text(seed: int) -> Tensor:
    return torch.randint(V, (T, B), generator=torch.Generator().manual_seed(seed))


def explicit(model: RecurrentModel, features: Tensor) -> Tensor:
    """Log-probabilities [T, B, V] from the papers, word by word."""
    head = model.head
    if isinstance(head, MixtureHead):
        prior = (features @ head.prior.T).softmax(-1)
        inner = head.weight.shape[1]
        total: Tensor | float = 0.0
        for k in range(head.config.experts):
            rows = slice(k * inner, (k + 1) * inner)
            latent = torch.tanh(features @ head.latent[rows].T + head.latent_bias[rows])
            logits = latent @ head.weight.T + head.bias
            total = total + prior[..., k, None] * logits.softmax(-1)
        return torch.as_tensor(total).log()
    assert isinstance(head, AdaptiveHead)
    x = features if head.projection is None else features @ head.projection.T
    order = COUNTS.argsort(descending=True, stable=True)
    biases = list(head.biases) or [torch.tensor(0.0)] * 3
    words = [model.embedding.weight[order[a:b]] for a, b in ((0, 4), (4, 13), (13, V))]
    words = words if head.tied else list(head.weights)
    top = (x @ torch.cat([words[0], head.clusters]).T + biases[0]).log_softmax(-1)
    result = torch.empty(*features.shape[:-1], V, dtype=features.dtype)
    for rank, word in enumerate(order.tolist()):
        cluster = 0 if rank < 4 else 1 if rank < 13 else 2
        if not cluster:
            result[..., word] = top[..., rank]
            continue
        down = list(head.downs)[cluster - 1] if len(head.downs) else None
        inside = x if down is None else x @ down.T
        within = (inside @ words[cluster].T + biases[cluster]).log_softmax(-1)
        begin = (4, 13)[cluster - 1]
        result[..., word] = top[..., 4 + cluster - 1] + within[..., rank - begin]
    return result


@pytest.mark.parametrize("name", HEADS)
def test_equals_its_definition_in_value_and_gradient(name: str) -> None:
    model, x, y = build(name), text(0), text(1)
    features, _ = model.features(x)
    log_p = explicit(model, features)
    nll = -log_p.gather(2, y[..., None]).squeeze(2)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(x)[0], log_p.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(x, y).nll, nll.detach(), rtol=1e-9, atol=1e-9)
        total = model.log_prob(x)[0].exp().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(nll.mean(), list(model.parameters()))
    output = model(x, y)
    torch.testing.assert_close(output.objective, nll.mean(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.nll, nll.detach(), rtol=1e-9, atol=1e-9)
    found = torch.autograd.grad(output.objective, list(model.parameters()))
    for (key, _), a, b in zip(model.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_a_cluster_without_a_target_is_left_alone() -> None:
    model = build("adaptive")
    frequent = COUNTS.argsort(descending=True, stable=True)[:4]
    y = frequent[torch.arange(T * B).view(T, B) % 4]
    model(text(0), y).objective.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert gradients["head.weights.0"] is not None
    assert gradients["head.weights.1"] is None
    assert gradients["head.clusters"] is not None


def test_default_cutoffs_are_a_tenth_and_a_half() -> None:
    assert AdaptiveConfig().edges(10_000) == [0, 1000, 5000, 10_000]
    assert AdaptiveConfig().edges(3) == [0, 1, 3]
    with pytest.raises(ConfigError, match="must be < the vocabulary of 10"):
        AdaptiveConfig(cutoffs=[2, 10]).edges(10)
    for wrong in ([5, 5], [0, 3], [7, 2]):
        with pytest.raises(ConfigError, match="must rise"):
            AdaptiveConfig(cutoffs=wrong)


def test_ranks_travel_with_the_weights_and_must_be_an_order() -> None:
    model = build("adaptive")
    saved = {name: tensor.detach().clone() for name, tensor in model.tensors().items()}
    assert torch.equal(saved["head.rank"], COUNTS.argsort(descending=True, stable=True).argsort())
    fresh = CELLS["lstm"](embedding_size=E, hidden_size=H, **ADAPTIVE).build(V, seed=2).double()
    fresh.load_tensors(saved)
    with torch.no_grad():
        assert torch.equal(fresh(text(0), text(1)).nll, model(text(0), text(1)).nll)
    for wrong in (torch.zeros(V, dtype=torch.int64), torch.arange(V) + 1):
        with pytest.raises(CheckpointError, match="no order of the vocabulary"):
            fresh.load_tensors({**saved, "head.rank": wrong})


def test_latent_dropout_is_the_same_in_every_step() -> None:
    model = build("mixture", dropout=DropoutConfig(latent=0.5))
    head, noise = model.head, Noise(1, 0, B)
    assert isinstance(head, MixtureHead)
    features = torch.ones(T * B, H, dtype=torch.float64)
    _, x = head._mix(features, noise)
    _, calm = head._mix(features)
    scale = (x / calm).view(T, B, -1)
    assert torch.equal(scale, scale[:1].expand_as(scale))
    assert not torch.equal(scale[:, 0], scale[:, 1])
    assert 0.3 < (scale == 0).double().mean() < 0.7


def test_every_row_has_a_gradient_of_its_own() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(13, 5, dtype=torch.float64, generator=draws, requires_grad=True)
    w = torch.randn(7, 5, dtype=torch.float64, generator=draws, requires_grad=True)
    b = torch.randn(7, dtype=torch.float64, generator=draws, requires_grad=True)
    y = torch.randint(7, (13,), generator=draws)
    share = torch.rand(13, dtype=torch.float64, generator=draws)
    ours = torch.autograd.grad((row_nll(x, w, b, y) * share).sum(), [x, w, b])
    theirs = torch.nn.functional.cross_entropy(x @ w.T + b, y, reduction="none")
    for a, c in zip(ours, torch.autograd.grad((theirs * share).sum(), [x, w, b]), strict=True):
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mixture": MixtureConfig(experts=3)}, "model.mixture is set, but model.head=softmax"),
        ({"adaptive": AdaptiveConfig(divisor=2.0)}, "model.adaptive is set"),
        ({**ADAPTIVE, "tied": True}, "divisor=2 rare words have smaller ones"),
        ({**HEADS["mixture of another size"], "tied": True}, "model.mixture.size=7 contradicts"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        CELLS["lstm"](**fields)
