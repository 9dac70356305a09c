"""The schemas build what they say: torch's own optimisers, with checked values."""

import math
from typing import Any

import pytest
import torch
from optim_problem import CONFIGS, GO, make_parameters, set_gradients

from lm.errors import ConfigError
from lm.optim.muon import MuonConfig
from lm.optim.optimizers import OPTIMIZERS, AdamWConfig, NAdamConfig, SGDConfig

O = torch.optim  # noqa: E741
# The same optimisers spelled in torch's own arguments, without fused kernels.
PLAIN: dict[str, Any] = {
    "plain_sgd": lambda ps: O.SGD(ps, lr=0.1),
    "sgd": lambda ps: O.SGD(ps, lr=0.1, weight_decay=0.01),
    "momentum": lambda ps: O.SGD(ps, lr=0.1, momentum=0.9),
    "nesterov": lambda ps: O.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda ps: O.Adam(ps, lr=0.01, betas=(0.8, 0.98), weight_decay=0.1),
    "amsgrad": lambda ps: O.Adam(ps, lr=0.01, amsgrad=True),
    "adamw": lambda ps: O.AdamW(ps, lr=0.01, betas=(0.8, 0.98), eps=1e-6, weight_decay=0.1),
    "nadam": lambda ps: O.NAdam(
        ps, momentum_decay=0.01, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "radam": lambda ps: O.RAdam(ps, lr=0.01, betas=(0.9, 0.9), weight_decay=0.1),
    "adamax": lambda ps: O.Adamax(ps, lr=0.01, betas=(0.8, 0.999), weight_decay=0.1),
    "adagrad": lambda ps: O.Adagrad(
        ps, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1, weight_decay=0.1
    ),
    "adadelta": lambda ps: O.Adadelta(ps, lr=0.5, rho=0.8, weight_decay=0.1),
    "rmsprop": lambda ps: O.RMSprop(
        ps, lr=0.01, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.1
    ),
    "asgd": lambda ps: O.ASGD(ps, lr=0.1, lambd=0.01, alpha=0.5, t0=2.0, weight_decay=0.1),
    "adafactor": lambda ps: O.Adafactor(ps, lr=0.1, beta2_decay=-0.7, d=2.0, weight_decay=0.1),
}


@pytest.mark.parametrize("coefficient", [None, 1.0, 0.25])
@pytest.mark.parametrize("case", PLAIN)
def test_equals_the_plain_torch_optimizer(case, coefficient):
    ours, plain = make_parameters(torch.float64), make_parameters(torch.float64)
    optimizers = CONFIGS[case].build(ours)
    reference = PLAIN[case](list(plain.values()))
    for step in range(8):
        set_gradients(ours, step)
        set_gradients(plain, step)
        for parameter in plain.values():
            parameter.grad *= coefficient or 1.0
        clipped = None if coefficient is None else torch.tensor(coefficient, dtype=torch.float64)
        optimizers.step(GO, clipped)
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-12, atol=1e-12)


def test_plain_sgd_takes_sparse_gradients_and_no_other_does():
    optimizers = {name: config.build(make_parameters()) for name, config in CONFIGS.items()}
    assert [name for name, o in optimizers.items() if o.takes_sparse_gradients] == ["plain_sgd"]
    moved = []
    for sparse in (True, False):
        weight = torch.nn.Parameter(torch.ones(4, 2))
        gradient = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [3.0, 0.0]])
        weight.grad = gradient.to_sparse(1) if sparse else gradient
        SGDConfig(lr=0.5).build({"w": weight}).step(GO, torch.tensor(0.5))
        moved.append(weight.detach())
    assert torch.equal(moved[0], moved[1])
    assert moved[0][3].tolist() == [0.25, 1.0]


def test_muon_updates_hidden_matrices_and_adamw_the_rest():
    ours, plain = make_parameters(), make_parameters()
    optimizers = CONFIGS["muon"].build(ours)
    hidden = [plain.pop("layers.0.weight"), plain.pop("layers.0.transposed")]
    muon = O.Muon(hidden, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = O.AdamW(list(plain.values()), lr=1e-3, weight_decay=0.01)
    everything = {"layers.0.weight": hidden[0], "layers.0.transposed": hidden[1], **plain}
    everything = {name: everything[name] for name in ours}
    for step in range(8):
        set_gradients(ours, step)
        set_gradients(everything, step)
        optimizers.step(GO)
        muon.step()
        adamw.step()
    for name in ours:
        torch.testing.assert_close(ours[name], everything[name], rtol=1e-6, atol=1e-7)


def test_muon_without_hidden_matrices_is_adamw_alone():
    parameters = {"embedding.weight": make_parameters()["embedding.weight"]}
    assert MuonConfig().build(parameters).state_scalars()["kinds"] == ["AdamW"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_registered_optimizer_builds_with_its_defaults_and_moves_every_parameter(name):
    parameters, before = make_parameters(), make_parameters()
    optimizers = OPTIMIZERS[name]().build(parameters)
    set_gradients(parameters, 0)
    optimizers.step(GO)
    assert all(not torch.equal(parameters[n], before[n]) for n in parameters)


def test_all_optimizers_of_the_scope_are_registered():
    expected = "sgd adam adamw nadam radam adamax adagrad adadelta rmsprop asgd adafactor muon"
    assert list(OPTIMIZERS) == expected.split()


def test_fused_kernels_are_used_where_torch_has_them():
    fused = {
        name
        for name, config in OPTIMIZERS.items()
        if config().build(make_parameters()).guards[-1].optimizer.param_groups[0].get("fused")
    }
    assert fused == {"sgd", "adam", "adamw", "adagrad", "muon"}  # muon: its AdamW part


def test_fused_update_reads_a_gradient_by_its_strides():
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.arange(6.0).view(3, 2).t()
    SGDConfig(lr=1.0).build({"w": parameter}).step(GO)
    assert torch.equal(parameter.detach(), torch.tensor([[0.0, -2, -4], [-1, -3, -5]]))


def test_a_parameter_may_get_its_first_gradient_later():
    parameters = make_parameters()
    optimizers = CONFIGS["momentum"].build(parameters)
    set_gradients(parameters, 0)
    late = parameters["head.weight"]
    before = late.detach().clone()
    late.grad = None
    optimizers.step(GO)
    assert torch.equal(late, before)
    set_gradients(parameters, 1)
    expected = before - 0.1 * late.grad
    optimizers.step(GO)
    torch.testing.assert_close(late.detach(), expected)


def test_learning_rate_follows_the_multiplier_and_the_scale_of_each_group():
    parameters, before = make_parameters(torch.float64), make_parameters(torch.float64)
    scales = {"layers": 0.5, "layers.0.bias": 0.0}
    optimizers = SGDConfig(lr=0.4).build(parameters, lr_scales=scales)
    assert optimizers.lr == 0.4
    optimizers.set_lr(0.25)
    assert optimizers.lr == 0.1
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(GO)
    for name, lr in {"head.weight": 0.1, "layers.0.weight": 0.05, "layers.0.bias": 0.0}.items():
        torch.testing.assert_close(parameters[name], before[name] - lr)


def test_learning_rate_scale_matches_whole_parts_of_a_name():
    parameters = {f"layers.{i}.w": torch.nn.Parameter(torch.zeros(1)) for i in (1, 10)}
    optimizers = SGDConfig(lr=1.0).build(parameters, lr_scales={"layers.1": 0.1})
    for parameter in parameters.values():
        parameter.grad = torch.ones(1)
    optimizers.step(GO)
    assert parameters["layers.1.w"].item() == pytest.approx(-0.1)
    assert parameters["layers.10.w"].item() == -1.0


def test_learning_rate_scale_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match="no parameter is called 'encoder'") as caught:
        SGDConfig().build(make_parameters(), lr_scales={"encoder": 0.1})
    assert "embedding, head, layers" in caught.value.remedy
    with pytest.raises(ConfigError, match=r"lr_scales.head must be a finite number >= 0, got -1"):
        MuonConfig().build(make_parameters(), lr_scales={"head": -1.0})


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_learning_rate_must_be_positive_and_finite(name, value):
    with pytest.raises(ConfigError) as caught:
        OPTIMIZERS[name](lr=value)
    assert caught.value.cause == f"optim.lr must be a finite number > 0, got {value!r}"


@pytest.mark.parametrize(
    ("name", "field", "value", "rule"),
    [
        ("sgd", "weight_decay", -0.1, "a finite number >= 0"),
        ("sgd", "momentum", 1.0, "a number in [0, 1)"),
        ("adam", "beta1", 1.0, "a number in [0, 1)"),
        ("adam", "beta2", math.nan, "a number in [0, 1)"),
        ("adamw", "eps", 0.0, "a finite number > 0"),
        ("nadam", "momentum_decay", -1.0, "a finite number >= 0"),
        ("radam", "beta1", -0.1, "a number in [0, 1)"),
        ("adamax", "eps", math.inf, "a finite number > 0"),
        ("adagrad", "lr_decay", -1.0, "a finite number >= 0"),
        ("adagrad", "initial_accumulator_value", math.nan, "a finite number >= 0"),
        ("adagrad", "eps", -1.0, "a finite number > 0"),
        ("adadelta", "rho", 1.5, "a number in [0, 1)"),
        ("adadelta", "eps", 0.0, "a finite number > 0"),
        ("rmsprop", "alpha", 1.0, "a number in [0, 1)"),
        ("rmsprop", "momentum", -0.5, "a number in [0, 1)"),
        ("rmsprop", "eps", 0.0, "a finite number > 0"),
        ("asgd", "lambd", -1.0, "a finite number >= 0"),
        ("asgd", "alpha", math.nan, "a finite number >= 0"),
        ("asgd", "t0", math.inf, "a finite number >= 0"),
        ("adafactor", "decay_exponent", -0.8, "a finite number >= 0"),
        ("adafactor", "eps1", 0.0, "a finite number > 0"),
        ("adafactor", "eps2", 0.0, "a finite number > 0"),
        ("adafactor", "clip_threshold", 0.5, ">= 1"),
        ("adafactor", "clip_threshold", math.inf, "a finite number"),
        ("muon", "momentum", 1.0, "a number in [0, 1)"),
        ("muon", "adamw_lr", 0.0, "a finite number > 0"),
        ("muon", "adamw_weight_decay", -1.0, "a finite number >= 0"),
        ("muon", "adamw_beta1", 1.0, "a number in [0, 1)"),
        ("muon", "adamw_beta2", 1.0, "a number in [0, 1)"),
        ("muon", "adamw_eps", 0.0, "a finite number > 0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, field, value, rule):
    with pytest.raises(ConfigError) as caught:
        OPTIMIZERS[name](**{field: value})
    assert caught.value.cause == f"optim.{field} must be {rule}, got {value!r}"


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match=r"optim.nesterov=true needs optim.momentum > 0, got 0.0"):
        SGDConfig(nesterov=True)


def test_settings_leave_out_learning_rates_only():
    assert "adamw_lr" not in MuonConfig().settings()
    assert MuonConfig().settings()["lr_adjustment"] == "original"
    names = {"weight_decay", "no_decay", "beta1", "beta2", "eps", "amsgrad"}
    assert set(AdamWConfig().settings()) == names
    assert NAdamConfig(momentum_decay=0.5).settings()["momentum_decay"] == 0.5
