"""The model as a whole: probability, causality, state, noise, initialisation, counts."""

import math

import pytest
import torch
from torch import nn

from lm.errors import ConfigError
from lm.models import CELLS, RecurrentModel
from lm.models.base import detach
from lm.models.dropout import DropoutConfig, dropout
from lm.models.gru import GRUConfig
from lm.models.init import InitConfig, PartInit, Scheme
from lm.models.language_model import parameter_counts
from lm.models.lstm import LSTMConfig
from lm.models.recurrent_config import HeadKind, InitialState
from lm.models.rnn import RNNConfig
from lm.runtime.compute import Compute, Kernels, Precision
from lm.runtime.randomness import Noise

V = 11


def tokens(t: int = 6, b: int = 4) -> torch.Tensor:
    return torch.randint(V, (t, b), generator=torch.Generator().manual_seed(3))


def build(name: str = "lstm", **fields: object) -> RecurrentModel:
    defaults = {"embedding_size": 5, "hidden_size": 6, "num_layers": 2}
    return CELLS[name](**{**defaults, **fields}).build(V, seed=1).double()


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("tied", [True, False])
def test_probabilities_sum_to_one_and_nll_is_their_logarithm(name: str, tied: bool) -> None:
    model = build(name, tied=tied)
    x, y = tokens(), tokens().roll(1, 0)
    features, _ = model.features(x)
    log_prob = model.head.log_prob(features)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(6, 4, dtype=torch.float64))
    picked = -log_prob.gather(-1, y[..., None]).squeeze(-1)
    output = model(x, y)
    torch.testing.assert_close(output.nll, picked, rtol=1e-12, atol=1e-12)
    assert output.objective.item() == pytest.approx(picked.mean().item(), rel=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_the_future_cannot_influence_the_past(name: str) -> None:
    model = build(name)
    x = tokens()
    before, _ = model.features(x)
    x[4] = (x[4] + 1) % V
    after, _ = model.features(x)
    torch.testing.assert_close(before[:4], after[:4], rtol=0, atol=0)
    assert not torch.allclose(before[4:], after[4:])


@pytest.mark.parametrize("name", CELLS)
def test_streams_do_not_influence_each_other(name: str) -> None:
    model = build(name)
    x = tokens()
    alone, _ = model.features(x[:, 2:3])
    together, _ = model.features(x)
    torch.testing.assert_close(alone, together[:, 2:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_window_of_2t_equals_two_of_t_with_carried_state(name: str) -> None:
    model = build(name)
    x, y = tokens(8), tokens(8).roll(1, 0)
    whole = model(x, y)
    first = model(x[:4], y[:4])
    second = model(x[4:], y[4:], detach(first.state))
    torch.testing.assert_close(whole.nll, torch.cat([first.nll, second.nll]))


def test_a_uniform_model_has_perplexity_v() -> None:
    model = build()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert math.exp(model(tokens(), tokens()).objective.item()) == pytest.approx(V, rel=1e-12)


@pytest.mark.parametrize("state", InitialState)
def test_resets_return_a_stream_to_its_initial_value(state: InitialState) -> None:
    model = build("lstm", initial_state=state)
    for parameter in model.initial.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(2))
    x = tokens()
    resets = torch.zeros(6, 4, dtype=torch.bool)
    resets[3, 1] = resets[0, 2] = True
    carried = [{k: torch.ones_like(t) for k, t in s.items()} for s in model.initial_state(4)]
    y, end = model.features(x, carried, resets=resets)
    plain, _ = model.features(x, carried)
    torch.testing.assert_close(y[:, 0], plain[:, 0])
    torch.testing.assert_close(y[:3, 1], plain[:3, 1])
    fresh, fresh_end = model.features(x[3:, 1:2])
    torch.testing.assert_close(y[3:, 1:2], fresh)
    torch.testing.assert_close(end[0]["c"][1:2], fresh_end[0]["c"])
    from_start, _ = model.features(x[:, 2:3])
    torch.testing.assert_close(y[:, 2:3], from_start)


def test_learned_initial_state_is_trained() -> None:
    model = build("gru", initial_state=InitialState.learned)
    model(tokens(), tokens()).objective.backward()
    assert {name for name, _ in model.initial.named_parameters()} == {"0_h", "1_h"}
    assert all((p.grad != 0).any() for p in model.initial.parameters())


@pytest.mark.parametrize("kernels", Kernels)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("tied", [True, False])
def test_low_precision_is_close_in_training_and_absent_in_evaluation(
    name: str, kernels: Kernels, tied: bool
) -> None:
    # To normalise few units magnifies the rounding of each.
    size = 64 if name == "layer_norm_lstm" else 6
    model = build(name, tied=tied, embedding_size=size, hidden_size=size).float()
    noise = Noise(1, 0, 4)
    exact = model(tokens(), tokens(), noise=noise)
    exact.objective.backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    with torch.no_grad():
        evaluated = model(tokens(), tokens()).nll
    model.compute = Compute(precision=Precision.bf16, kernels=kernels)
    model.zero_grad()
    low = model(tokens(), tokens(), noise=noise)
    low.objective.backward()
    assert low.nll.dtype == low.objective.dtype == torch.float32
    assert not torch.equal(low.nll, exact.nll)
    torch.testing.assert_close(low.nll, exact.nll, rtol=0, atol=0.1)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        error = float((parameter.grad - wanted[key]).norm() / wanted[key].norm())
        assert error < 0.03, key
    for layer in low.state:
        assert all(tensor.dtype == torch.float32 for tensor in layer.values())
    with torch.no_grad():
        again = model(tokens(), tokens()).nll
    torch.testing.assert_close(again, evaluated, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", Kernels)
def test_a_mixture_takes_features_of_low_precision(kernels: Kernels) -> None:
    model = build(head=HeadKind.mixture).float()
    exact = model(tokens(), tokens(), noise=Noise(1, 0, 4))
    model.compute = Compute(precision=Precision.bf16, kernels=kernels)
    low = model(tokens(), tokens(), noise=Noise(1, 0, 4))
    assert not torch.equal(low.nll, exact.nll)
    torch.testing.assert_close(low.nll, exact.nll, rtol=0, atol=0.1)


def test_dropout_acts_in_training_only_and_keeps_the_expectation() -> None:
    model = build(dropout=DropoutConfig(embedding=0.5, between=0.25, output=0.4))
    x = tokens()
    assert torch.equal(model.features(x)[0], model.features(x)[0])
    dropped, _ = model.features(x, noise=Noise(1, 0, 4))
    assert 0.2 < (dropped == 0).double().mean() < 0.6
    noise = Noise(seed=1, step=5, num_streams=50)
    mask = noise.keep_mask("site", (40, 50, 30), 0.3, stream_dim=1, like=torch.zeros(()))
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.7], rel=1e-5)  # in steps of 2⁻¹⁶
    assert (mask == 0).double().mean().item() == pytest.approx(0.3, abs=0.01)


def test_locked_dropout_keeps_its_mask_over_a_window() -> None:
    x = torch.ones(6, 4, 50)
    y = dropout(x, 0.5, Noise(1, 0, 4), "site", locked=True)
    assert torch.equal(y, y[:1].expand_as(y))
    assert y.unique().tolist() == [0, 2]
    z = dropout(x, 0.5, Noise(1, 0, 4), "site")
    assert not torch.equal(z, z[:1].expand_as(z))


def test_noise_depends_on_seed_step_and_site_and_slices_over_streams() -> None:
    def mask(seed: int, step: int, site: str) -> torch.Tensor:
        return Noise(seed, step, 8).keep_mask(
            site, (3, 8, 5), 0.5, stream_dim=1, like=torch.ones(())
        )

    whole = mask(1, 2, "a")
    assert torch.equal(whole, mask(1, 2, "a"))
    for other in (mask(2, 2, "a"), mask(1, 3, "a"), mask(1, 2, "b")):
        assert not torch.equal(whole, other)
    part = Noise(1, 2, 8).for_streams(slice(2, 5))
    sliced = part.keep_mask("a", (3, 3, 5), 0.5, stream_dim=1, like=torch.ones(()))
    assert torch.equal(sliced, whole[:, 2:5])


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    model = build(dropout=DropoutConfig(output=0.5))
    model(tokens(), tokens(), noise=Noise(1, 1, 4)).objective.backward()
    assert torch.equal(before, torch.get_rng_state())


def test_parameter_count_by_part() -> None:
    model = build("lstm", tied=True, layer_sizes=[6, 7], num_biases=2)
    counts = parameter_counts(model)
    assert counts == {
        "embedding": V * 5,
        "layers.0": 4 * 6 * (5 + 6 + 2),
        "layers.1": 4 * 7 * (6 + 7 + 2),
        "head": V + 5 * 7,
        "total": V * 5 + 4 * 6 * 13 + 4 * 7 * 15 + V + 35,
    }
    examples = LSTMConfig(
        embedding_size=200, hidden_size=200, num_layers=2, tied=False, num_biases=2
    ).build(10_000, seed=1)
    theirs = nn.LSTM(200, 200, 2)
    cells = sum(p.numel() for p in theirs.parameters())
    assert parameter_counts(examples)["total"] == 2 * 10_000 * 200 + 10_000 + cells


def test_initialisation_per_part() -> None:
    init = InitConfig(
        embedding=PartInit(kind=Scheme.normal, scale=0.5),
        input=PartInit(kind=Scheme.xavier, scale=2.0),
        recurrent=PartInit(kind=Scheme.orthogonal, scale=1.5),
        bias=PartInit(kind=Scheme.uniform, scale=0.2),
        output=PartInit(kind=Scheme.uniform),
    )
    model = LSTMConfig(
        embedding_size=60, hidden_size=80, tied=False, forget_bias=None, init=init
    ).build(500, seed=7)
    cell = model.cells[0]
    assert model.embedding.weight.std().item() == pytest.approx(0.5, rel=0.03)
    for gate in cell.weights()["weight_hh"].chunk(4):
        torch.testing.assert_close(gate @ gate.T, 2.25 * torch.eye(80), rtol=0, atol=1e-4)
    bound = 2.0 * math.sqrt(6 / (60 + 80))
    assert cell.weights()["weight_ih"].abs().max().item() == pytest.approx(bound, rel=0.01)
    assert cell.weights()["bias_ih"].abs().max().item() == pytest.approx(0.2, rel=0.05)
    assert model.head.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
    assert (model.head.bias == 0).all()


def test_torch_default_initialisation_has_torch_bounds() -> None:
    default = PartInit(kind=Scheme.default)
    init = InitConfig(input=default, recurrent=default, bias=default, output=default)
    model = GRUConfig(embedding_size=50, hidden_size=64, tied=False, init=init).build(300, seed=1)
    for weight in model.cells[0].weights().values():
        assert weight.abs().max().item() == pytest.approx(1 / 8, rel=0.05)
    assert model.head.weight.abs().max().item() == pytest.approx(1 / 8, rel=0.01)


@pytest.mark.parametrize("tied", [False, True])
def test_the_default_begins_near_the_uniform_distribution(*, tied: bool) -> None:
    model = LSTMConfig(embedding_size=200, hidden_size=200, tied=tied).build(10_000, seed=1)
    tokens, targets = torch.randint(10_000, (2, 20, 4), generator=torch.Generator().manual_seed(1))
    loss = model(tokens, targets).nll.mean().item()
    assert loss == pytest.approx(math.log(10_000), abs=0.2)


def test_irnn_forget_bias_and_chrono() -> None:
    identity = InitConfig(recurrent=PartInit(kind=Scheme.identity))
    irnn = RNNConfig(hidden_size=9, init=identity).build(V, seed=1)
    assert torch.equal(irnn.cells[0].weights()["weight_hh"], torch.eye(9))
    two = LSTMConfig(hidden_size=9, num_biases=2, forget_bias=1.0).build(V, seed=1).cells[0]
    total = two.weights()["bias_ih"] + two.weights()["bias_hh"]
    assert total.tolist() == [0.0] * 9 + [1.0] * 9 + [0.0] * 18
    chrono = LSTMConfig(hidden_size=900, forget_bias=None, chrono_max=100).build(V, seed=1)
    i, f, _, _ = chrono.cells[0].weights()["bias_ih"].chunk(4)
    assert torch.equal(i, -f)
    # u = exp(b_f) is uniform on (1, 99)
    assert f.exp().mean().item() == pytest.approx(50, rel=0.05)
    assert f.exp().min() > 1
    assert f.exp().max() < 99
    gru = GRUConfig(hidden_size=900, chrono_max=100).build(V, seed=1).cells[0]
    assert gru.weights()["bias_ih"][900:1800].exp().mean().item() == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTMConfig(hidden_size=0), "model.hidden_size must be >= 1, got 0"),
        (lambda: DropoutConfig(output=1.5), r"model.dropout.output must be a number in \[0, 1\)"),
        (lambda: LSTMConfig(num_biases=3), "model.num_biases must be one of 0, 1, 2, got 3"),
        (lambda: LSTMConfig(num_biases=0), "need a bias"),
        (lambda: LSTMConfig(layer_sizes=[]), r"len\(model.layer_sizes\)"),
        (lambda: InitConfig(bias=PartInit(kind=Scheme.orthogonal)), "model.init.bias.kind"),
        (lambda: InitConfig(input=PartInit(kind=Scheme.identity)), "only recurrent is square"),
        (
            lambda: InitConfig(embedding=PartInit(scale=0.1)),
            r"model.init.embedding.scale is set, but model.init.embedding.kind=default has none\n"
            r".*kind=uniform or normal.* at null",
        ),
        (lambda: InitConfig(bias=PartInit(kind=Scheme.zeros, scale=1.0)), "kind=zeros has none"),
    ],
)
def test_values_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
