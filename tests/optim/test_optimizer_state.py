"""Saving and restoring an optimiser changes nothing, and what does not fit is refused."""

import json
from typing import Any

import pytest
import torch
from optim_problem import CONFIGS, differing, make_parameters, train
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm.errors import CheckpointError
from lm.optim.base import Optimizers
from lm.optim.optimizers import AdamConfig, AdamWConfig, SGDConfig

STATEFUL = [case for case in CONFIGS if case not in ("plain_sgd", "sgd")]
# State that torch keeps without using it for the parameters: steps that are only counted, and
# ASGD's average (`mu` is its weight).
INERT = {"rmsprop": {"step"}, "adadelta": {"step"}, "asgd": {"ax", "mu"}}


def through_disk(optimizers: Optimizers, folder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    save_file(optimizers.state_tensors(), folder / "training.safetensors")
    scalars = json.loads(json.dumps(optimizers.state_scalars()))
    return load_file(folder / "training.safetensors"), scalars


def resumed(case: str, dtype: torch.dtype, folder, *, load: bool = True):
    """Weights and optimiser after 3 steps, a save, a restore into a new optimiser and 3 more."""
    parameters = make_parameters(dtype)
    optimizers = CONFIGS[case].build(parameters)
    train(parameters, optimizers, 0, 3)
    tensors, scalars = through_disk(optimizers, folder)
    again = make_parameters(dtype)
    for name, parameter in again.items():
        parameter.data.copy_(parameters[name].data)
    optimizers = CONFIGS[case].build(again)
    if load:
        optimizers.load_state(tensors, scalars)
        assert not differing(optimizers.state_tensors(), tensors)
    train(again, optimizers, 3, 6)
    return again, optimizers


def uninterrupted(case: str, dtype: torch.dtype):
    parameters = make_parameters(dtype)
    optimizers = CONFIGS[case].build(parameters)
    train(parameters, optimizers, 0, 6)
    return parameters, optimizers


# bfloat16 has no fused kernels here, and counters of another dtype than the parameters.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CONFIGS)
def test_restored_run_equals_the_uninterrupted_one_to_the_last_bit(case, dtype, tmp_path):
    parameters, optimizers = resumed(case, dtype, tmp_path)
    expected, reference = uninterrupted(case, dtype)
    assert differing(parameters, expected) == []
    assert differing(optimizers.state_tensors(), reference.state_tensors()) == []


@pytest.mark.parametrize("case", STATEFUL)
def test_without_its_state_the_optimizer_ends_elsewhere(case, tmp_path):
    parameters, _ = resumed(case, torch.float32, tmp_path, load=False)
    assert differing(parameters, uninterrupted(case, torch.float32)[0])


@pytest.mark.parametrize("case", STATEFUL)
def test_every_saved_tensor_matters(case, tmp_path):
    """Halving any one kind of state must change the run: nothing is saved for show."""
    expected, _ = uninterrupted(case, torch.float32)
    parameters = make_parameters()
    optimizers = CONFIGS[case].build(parameters)
    train(parameters, optimizers, 0, 3)
    tensors, scalars = through_disk(optimizers, tmp_path)
    kinds = {key.partition("/")[0] for key in tensors}
    for kind in kinds - INERT.get(case, set()):
        again = make_parameters()
        for name, parameter in again.items():
            parameter.data.copy_(parameters[name].data)
        spoilt = {k: v.mul(0.5) if k.startswith(f"{kind}/") else v for k, v in tensors.items()}
        fresh = CONFIGS[case].build(again)
        fresh.load_state(spoilt, scalars)
        train(again, fresh, 3, 6)
        assert differing(again, expected), kind


def test_counters_keep_their_precision_where_torch_would_cast_them():
    parameters = make_parameters(torch.bfloat16)
    optimizers = CONFIGS["nadam"].build(parameters)
    train(parameters, optimizers, 0, 3)
    product = optimizers.state_tensors()["mu_product/head.weight"]
    assert product.dtype == torch.float32
    theirs = torch.optim.NAdam(make_parameters(torch.bfloat16).values())
    theirs.load_state_dict(optimizers.guards[0].optimizer.state_dict())
    cast = next(iter(theirs.state.values()))["mu_product"]
    assert cast.dtype == torch.bfloat16
    assert cast.item() != product.item()


def test_loading_copies_and_keeps_the_layout_of_the_parameter(tmp_path):
    parameters = make_parameters()
    optimizers = CONFIGS["adam"].build(parameters)
    train(parameters, optimizers, 0, 1)
    tensors, scalars = through_disk(optimizers, tmp_path)
    fresh = CONFIGS["adam"].build(make_parameters())
    fresh.load_state(tensors, scalars)
    tensors["exp_avg/head.weight"].zero_()
    assert fresh.state_tensors()["exp_avg/head.weight"].abs().sum() > 0
    transposed = parameters["layers.0.transposed"]
    live = fresh.guards[0].optimizer.state
    assert [s["exp_avg"].stride() for p, s in live.items() if p.shape == transposed.shape] == [
        transposed.stride()
    ]


def test_loading_replaces_all_that_was_there_and_the_learning_rate():
    early = AdamConfig(lr=0.5).build(make_parameters())
    early.set_lr(0.25)
    tensors, scalars = early.state_tensors(), early.state_scalars()
    assert tensors == {}
    parameters = make_parameters()
    late = AdamConfig(lr=0.5).build(parameters)
    train(parameters, late, 0, 2)
    late.load_state(tensors, scalars)
    assert late.state_tensors() == {}
    assert late.lr == 0.125


def saved_adam() -> tuple[Optimizers, dict[str, Tensor], dict[str, Any]]:
    parameters = make_parameters()
    optimizers = AdamConfig().build(parameters)
    train(parameters, optimizers, 0, 2)
    fresh = AdamConfig().build(make_parameters())
    return fresh, optimizers.state_tensors(), optimizers.state_scalars()


def test_state_of_another_optimizer_is_refused():
    _, tensors, scalars = saved_adam()
    with pytest.raises(CheckpointError, match="optimizer is Adam, this run's SGD"):
        SGDConfig(momentum=0.9).build(make_parameters()).load_state(tensors, scalars)
    with pytest.raises(CheckpointError, match="optimizer is Adam, this run's AdamW"):
        AdamWConfig().build(make_parameters()).load_state(tensors, scalars)
    with pytest.raises(CheckpointError, match="optimizer is unknown, this run's Adam"):
        AdamConfig().build(make_parameters()).load_state(tensors, {})


def test_state_under_other_settings_is_refused_but_another_learning_rate_is_not():
    _, tensors, scalars = saved_adam()
    with pytest.raises(CheckpointError, match=r"optim.beta1 is 0.8, .* written with 0.9"):
        AdamConfig(beta1=0.8).build(make_parameters()).load_state(tensors, scalars)
    AdamConfig(lr=0.5).build(make_parameters()).load_state(tensors, scalars)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("exp_avg/head.weight"), "lacks optimizer state: exp_avg/head.weight"),
        (lambda t: t.update({"step/extra": torch.ones(())}), "unexpected optimizer state: step/ex"),
    ],
)
def test_missing_or_unexpected_tensors_are_refused(change, message):
    fresh, tensors, scalars = saved_adam()
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        fresh.load_state(tensors, scalars)
    assert fresh.state_tensors() == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("exp_avg/head.weight", torch.zeros(6, 7), r"has shape \[6, 7\], its parameter \[7, 6\]"),
        ("exp_avg/decoder.weight", torch.zeros(7, 6), "belongs to no parameter"),
    ],
)
def test_state_that_fits_no_parameter_is_refused(name, value, message):
    fresh, tensors, scalars = saved_adam()
    tensors[name] = value
    scalars["tensors"] = sorted(tensors)
    with pytest.raises(CheckpointError, match=message):
        fresh.load_state(tensors, scalars)
    assert fresh.state_tensors() == {}
