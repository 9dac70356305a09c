"""A skipped step leaves no trace, whichever way the flag is obeyed."""

import math

import pytest
import torch
from optim_problem import (
    CONFIGS,
    GO,
    SKIP,
    differing,
    make_parameters,
    set_gradients,
    use_method,
)

from lm.optim.guard import Guard, SkipMethod, skip_method
from lm.optim.optimizers import AdamConfig, SGDConfig

BAD = None
METHODS = [
    (case, method)
    for case in CONFIGS
    for method in SkipMethod
    if use_method(CONFIGS[case].build(make_parameters()), method)
]


def run(case: str, method: SkipMethod, steps: list[int | None]):
    """Good steps have a number; a bad one has NaN and infinity in its gradients."""
    parameters = make_parameters()
    optimizers = CONFIGS[case].build(parameters)
    assert use_method(optimizers, method)
    for step in steps:
        set_gradients(parameters, step or 0)
        if step is BAD:
            parameters["layers.0.weight"].grad[0, 0] = math.nan
            parameters["head.weight"].grad[0, 0] = math.inf
        optimizers.step(SKIP if step is BAD else GO)
    return parameters, optimizers.state_tensors()


@pytest.mark.parametrize(("case", "method"), METHODS)
def test_run_with_bad_steps_equals_the_run_that_never_had_them(case, method):
    parameters, state = run(case, method, [BAD, 1, BAD, 2, 3, BAD, BAD, 4])
    expected, expected_state = run(case, SkipMethod.host, [1, 2, 3, 4])
    assert differing(parameters, expected) == []
    assert differing(state, expected_state) == []


def test_three_ways_to_skip_are_tested_for_the_optimizers_that_have_fused_kernels():
    fused = {case for case, method in METHODS if method is SkipMethod.found_inf}
    assert fused == {
        "plain_sgd",
        "sgd",
        "momentum",
        "nesterov",
        "adam",
        "amsgrad",
        "adamw",
        "adagrad",
    }
    assert {case for case, method in METHODS if method is SkipMethod.masked} == set(CONFIGS)


@pytest.mark.parametrize("case", CONFIGS)
def test_without_the_flag_a_bad_gradient_ruins_the_parameters(case):
    parameters = make_parameters()
    optimizers = CONFIGS[case].build(parameters)
    set_gradients(parameters, 0)
    parameters["layers.0.weight"].grad[0, 0] = math.nan
    optimizers.step(GO)
    assert not parameters["layers.0.weight"].isfinite().all()


@pytest.mark.parametrize(("case", "method"), [m for m in METHODS if m[1] is not SkipMethod.host])
def test_flag_is_not_read_on_the_host_after_the_first_step(case, method, monkeypatch):
    parameters = make_parameters()
    optimizers = CONFIGS[case].build(parameters)
    use_method(optimizers, method)
    set_gradients(parameters, 0)
    optimizers.step(GO)
    reads = []
    for name in ("__bool__", "item", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def spy(tensor, original=original):
            if tensor is SKIP:
                reads.append(tensor)
            return original(tensor)

        monkeypatch.setattr(torch.Tensor, name, spy)
    optimizers.step(SKIP)
    assert not reads
    assert bool(SKIP)
    assert reads  # the spy sees what it should


def test_fused_momentum_of_a_skipped_first_step_is_zero():
    parameters = {"w": torch.nn.Parameter(torch.ones(1000))}
    parameters["w"].grad = torch.full((1000,), math.nan)
    optimizers = SGDConfig(momentum=0.9).build(parameters)
    use_method(optimizers, SkipMethod.found_inf)
    rubbish = [torch.full((1000,), 7.0) for _ in range(20)]  # what uninitialised memory may hold
    del rubbish
    optimizers.step(SKIP)
    assert torch.equal(optimizers.state_tensors()["momentum_buffer/w"], torch.zeros(1000))
    assert torch.equal(parameters["w"].detach(), torch.ones(1000))


def test_method_follows_device_and_implementation():
    def choice(kind, device, **options):
        parameter = torch.nn.Parameter(torch.zeros(2, 2, device=device))
        optimizer = kind([parameter], lr=0.1)
        optimizer.param_groups[0].update(options)
        return skip_method(optimizer)

    optim = torch.optim
    assert choice(optim.Adam, "cpu", fused=True) is SkipMethod.host
    assert choice(optim.Adam, "meta", fused=True) is SkipMethod.found_inf
    assert choice(optim.NAdam, "meta", capturable=True) is SkipMethod.masked
    assert choice(optim.SGD, "meta") is SkipMethod.masked
    assert choice(optim.Muon, "meta") is SkipMethod.masked
    assert choice(optim.NAdam, "meta") is SkipMethod.host
    assert choice(optim.Adafactor, "meta") is SkipMethod.host


def test_found_inf_needs_a_fused_optimizer():
    with pytest.raises(AssertionError):
        Guard(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), SkipMethod.found_inf)
    assert AdamConfig().build(make_parameters()).guards[0].method is SkipMethod.host
