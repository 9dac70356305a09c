"""Each regulariser: in training only, constant where it must be, its expectation and gradient."""

import math

import pytest
import torch
from torch import Tensor

from lm.errors import ConfigError
from lm.models import CELLS, RecurrentModel
from lm.models.budget import parse_count
from lm.models.dropout import DropoutConfig
from lm.models.language_model import parameter_counts
from lm.models.penalties import PenaltyConfig
from lm.models.weights import KEEP_H
from lm.runtime.randomness import Noise

V, T, B, E, H = 30, 7, 6, 5, 8
NOISE = Noise(seed=1, step=3, num_streams=B)


def build(cell: str = "lstm", **fields: object) -> RecurrentModel:
    sizes = {"embedding_size": E, "hidden_size": H, "num_layers": 2}
    return CELLS[cell](**{**sizes, **fields}).build(V, seed=1).double()


def text(seed: int = 0) -> Tensor:
    return torch.randint(V, (T, B), generator=torch.Generator().manual_seed(seed))


def gradients(model: RecurrentModel, objective: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    objective.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout": DropoutConfig(words=0.5)},
        {"dropout": DropoutConfig(weights=0.5)},
        {"dropout": DropoutConfig(state=0.5)},
        {"dropout": DropoutConfig(embedding=0.5, locked=True)},
        {"penalty": PenaltyConfig(activation=2.0)},
        {"penalty": PenaltyConfig(temporal=2.0)},
        {"penalty": PenaltyConfig(label_smoothing=0.3)},
        {"state_reset": 0.5},
    ],
    ids=str,
)
def test_a_regulariser_acts_in_training_only_and_repeats_with_its_step(
    fields: dict[str, object],
) -> None:
    model, plain, x, y = build(**fields), build(), text(), text(1)
    _, state = plain.features(text(2))
    calm = model(x, y, state)
    torch.testing.assert_close(calm.nll, plain(x, y, state).nll, rtol=0, atol=0)
    torch.testing.assert_close(calm.objective, calm.nll.mean())
    moved = model(x, y, state, noise=NOISE)
    assert abs((moved.objective - calm.objective).item()) > 1e-6
    assert torch.equal(moved.objective, model(x, y, state, noise=NOISE).objective)
    if "penalty" in fields:  # reported is the loss alone
        torch.testing.assert_close(moved.nll, calm.nll, rtol=1e-12, atol=0)


def test_words_are_dropped_whole_and_wherever_they_occur() -> None:
    model = build(dropout=DropoutConfig(words=0.4))
    tokens = torch.arange(V).repeat(2, 1).T.contiguous()[:, :1].repeat(2, 1)  # each word twice
    seen = []
    original = model.cells[0].sequence
    model.cells[0].sequence = lambda x, *rest: (seen.append(x), original(x, *rest))[1]  # type: ignore[method-assign]
    output = model(tokens, tokens, noise=Noise(1, 0, 1))
    scale = seen[0][:, 0] / model.embedding.weight[tokens[:, 0]]
    assert torch.allclose(scale, scale[:, :1].expand_as(scale))
    first, second = scale[:V, 0], scale[V:, 0]
    assert torch.equal(first, second)
    dropped = (first == 0).double().mean().item()
    assert 0.1 < dropped < 0.7
    kept = first[first > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.6), rtol=1e-4, atol=0)
    rows = gradients(model, output.objective)["embedding.weight"].abs().sum(1)
    assert torch.equal(rows == 0, first == 0)


def weight_mask(model: RecurrentModel, layer: int, rate: float) -> Tensor:
    site, like = f"dropout.weights.{layer}.weight_hh", model.cells[layer].weight_hh
    return NOISE.shared_mask(site, like.shape, rate, like=like.detach())


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_weight_drop_is_one_mask_for_the_window(cell: str) -> None:
    """The kernels see the dropped matrix; the gradient reaches the raw one through the mask."""
    model, plain = build(cell, dropout=DropoutConfig(weights=0.5)), build(cell)
    found = model(text(), text(1), noise=NOISE)
    raw = gradients(model, found.objective)
    for k, layer in enumerate(plain.cells):
        mask = weight_mask(plain, k, 0.5)
        assert 0.3 < (mask == 0).double().mean() < 0.7
        layer.weight_hh.data.mul_(mask)
    wanted = plain(text(), text(1))
    torch.testing.assert_close(found.nll, wanted.nll, rtol=1e-12, atol=1e-12)
    by_dropped = gradients(plain, wanted.objective)
    for k in range(2):
        name = f"layers.{k}.weight_hh"
        mask = weight_mask(plain, k, 0.5)
        torch.testing.assert_close(raw[name], by_dropped[name] * mask, rtol=1e-9, atol=1e-12)
        assert (raw[name][mask == 0] == 0).all()
        assert (raw[name][mask != 0] != 0).all()


def test_a_slice_of_the_streams_sees_the_same_dropped_weights_and_its_own_states() -> None:
    model = build(dropout=DropoutConfig(weights=0.5, state=0.3, words=0.2), state_reset=0.4)
    x, y, (_, state) = text(), text(1), build().features(text(2))
    whole = model(x, y, state, noise=NOISE).nll
    some = slice(2, 5)
    sliced = [{name: t[some] for name, t in layer.items()} for layer in state]
    part = model(x[:, some], y[:, some], sliced, noise=NOISE.for_streams(some)).nll
    torch.testing.assert_close(part, whole[:, some], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "mogrifier", "slstm"])
def test_state_dropout_masks_h_alike_in_every_step(cell: str) -> None:
    plain = build(cell, num_layers=1)
    model = build(cell, num_layers=1, dropout=DropoutConfig(state=0.5))
    like = torch.zeros(B, H, dtype=torch.float64)
    mask = NOISE.keep_mask("dropout.state.0", (B, H), 0.5, stream_dim=0, like=like)
    assert 0.2 < (mask == 0).double().mean() < 0.8
    layer, state = plain.cells[0], plain.initial_state(B)[0]
    x = plain.embedding.weight[text()]
    weights, outputs = {**layer.weights(), KEEP_H: mask}, []
    for x_t in x:
        state, _ = layer.step(x_t, state, weights)
        outputs.append(state["h"])
    wanted = plain.head.loss(torch.stack(outputs).flatten(0, 1), text(1).flatten())[0]
    found = model(text(), text(1), noise=NOISE).objective
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    wanted_gradients = gradients(plain, wanted)
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, wanted_gradients[name], rtol=1e-8, atol=1e-12)


def test_masks_keep_the_expectation() -> None:
    like = torch.zeros((), dtype=torch.float64)
    for rate in (0.1, 0.5):
        mask = NOISE.shared_mask("somewhere", (300, 300), rate, like=like)
        assert mask.mean().item() == pytest.approx(1.0, abs=4 * math.sqrt(rate / (1 - rate)) / 300)


def test_activation_and_temporal_penalties() -> None:
    alpha, beta = 2.0, 0.7
    rates = DropoutConfig(output=0.3, locked=True)
    model = build(dropout=rates, penalty=PenaltyConfig(activation=alpha, temporal=beta))
    plain = build(dropout=rates)
    found = model(text(), text(1), noise=NOISE)
    raw, _ = build().features(text())
    dropped, _ = plain.features(text(), noise=NOISE)
    loss = plain(text(), text(1), noise=NOISE).objective
    activation = alpha * (dropped**2).sum() / dropped.numel()
    steps = raw[1:] - raw[:-1]
    temporal = beta * (steps**2).sum() / steps.numel()
    # The penalties are float32 sums.
    torch.testing.assert_close(found.objective, loss + activation + temporal, rtol=1e-6, atol=0)
    gradient = gradients(model, found.objective)["layers.1.weight_hh"]
    assert not torch.allclose(gradient, gradients(plain, loss)["layers.1.weight_hh"], rtol=1e-3)
    one_step = model(text()[:1], text(1)[:1], noise=NOISE)
    assert one_step.objective.isfinite()


@pytest.mark.parametrize("tied", [False, True])
def test_label_smoothing_is_a_uniform_share_of_the_target(tied: bool) -> None:
    epsilon = 0.2
    model = build(tied=tied, penalty=PenaltyConfig(label_smoothing=epsilon))
    plain = build(tied=tied)
    found = model(text(), text(1), noise=NOISE)
    log_p, _ = plain.log_prob(text())
    target = torch.nn.functional.one_hot(text(1), V) * (1 - epsilon) + epsilon / V
    wanted = -(target * log_p).sum(-1).mean()
    torch.testing.assert_close(found.objective.double(), wanted, rtol=1e-6, atol=0)
    theirs = gradients(plain, wanted)
    for name, gradient in gradients(model, found.objective).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-7)


def test_some_streams_begin_a_window_at_their_initial_state() -> None:
    model, plain = build(state_reset=0.5), build()
    _, state = plain.features(text(2))
    found = model(text(), text(1), state, noise=NOISE).nll
    carried, fresh = plain(text(), text(1), state).nll, plain(text(), text(1)).nll
    is_fresh = [torch.allclose(found[:, b], fresh[:, b]) for b in range(B)]
    assert [torch.allclose(found[:, b], carried[:, b]) for b in range(B)] == [
        not f for f in is_fresh
    ]
    assert 0 < sum(is_fresh) < B


def test_residual_and_skip_connections() -> None:
    """A layer's input is added, not its previous state; the head sees the sum of the layers."""
    rates = DropoutConfig(between=0.3)
    for name in ("residual", "skip"):
        model, x = build(num_layers=3, dropout=rates, **{name: True}), text()
        for noise in (None, NOISE):
            below = model.embedding.weight[x]
            outputs = []
            for k, cell in enumerate(model.cells):
                seen = below
                if k and noise is not None:
                    site = f"dropout.between.{k}"
                    seen = below * noise.keep_mask(site, below.shape, 0.3, stream_dim=1, like=below)
                y, _ = cell.reference(seen, model.initial_state(B)[k], cell.weights())
                below = y + below if name == "residual" and k else y
                outputs.append(below)
            wanted = below if name == "residual" else sum(outputs)
            found, _ = model.features(x, noise=noise)
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"residual": True, "layer_sizes": [4, 5]}, "sizes differ"),
        ({"skip": True, "num_layers": 1}, "needs a second layer"),
        ({"state_reset": 1.0}, r"model.state_reset must be a number in \[0, 1\)"),
        ({"parameters": "many"}, "model.parameters must be a number of parameters"),
        ({"parameters": "1M", "layer_sizes": [4, 4]}, "overrules"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build(**fields)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_budget_gives_the_largest_model_within_it(cell: str, tied: bool) -> None:
    budget = 20_000
    config = CELLS[cell](embedding_size=16, num_layers=2, tied=tied, parameters="20k")
    total = parameter_counts(config.build(V, seed=1))["total"]
    solved = config.solved(V)
    larger = type(config)(
        embedding_size=16, num_layers=2, tied=tied, hidden_size=solved.hidden_size + 1
    )
    assert total <= budget < parameter_counts(larger.build(V, seed=1))["total"]


def test_a_budget_minds_the_sizes_that_a_cell_sets() -> None:
    config = CELLS["lstmp"](embedding_size=16, projection_size=24, parameters="20k")
    solved = config.solved(V)
    assert solved.hidden_size > 24
    assert parameter_counts(solved.build(V, seed=1))["total"] <= 20_000
    with pytest.raises(ConfigError, match="a model of hidden size 25 has"):
        CELLS["lstmp"](embedding_size=16, projection_size=24, parameters="1k").solved(V)


def test_counts_are_read_as_people_write_them() -> None:
    written = {
        "24M": 24_000_000,
        "2.5M": 2_500_000,
        "300k": 300_000,
        "1_000": 1000,
        "2e6": 2_000_000,
    }
    assert {text: parse_count("x", text) for text in written} == written
    for wrong in ("", "M", "-3", "0", "2 M", "1.5.2"):
        with pytest.raises(ConfigError, match="number of parameters"):
            parse_count("x", wrong)


def test_a_budget_that_nothing_fits_is_refused() -> None:
    with pytest.raises(ConfigError, match="a model of hidden size 1 has"):
        CELLS["lstm"](parameters="100").build(V, seed=1)
