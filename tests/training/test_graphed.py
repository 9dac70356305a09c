"""The graphed step does what the ordinary step does, to the last bit.

Without a GPU a fake stands in for a CUDA graph. It records the operations with their very tensors
and on replay does them again, in memory that stays where it was; so whatever Python computed while
recording (a rate, a mask, a counter) is frozen in it, as it would be in a graph.
"""

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar
from unittest.mock import patch

import pytest
import torch
from harness import TEXT, Recipe
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lm.data.streams import Window
from lm.errors import ConfigError
from lm.models import CELLS
from lm.models.base import State
from lm.models.dropout import DropoutConfig
from lm.models.kernels import native, nll
from lm.models.recurrent_config import InitialState
from lm.models.rnn import RNN
from lm.models.sampled import Sampler
from lm.optim import OPTIMIZERS, clipping, groups
from lm.optim.clipping import ClipConfig
from lm.optim.guard import Guard, SkipMethod
from lm.runtime.compute import Compute, Kernels
from lm.runtime.randomness import FixedNoise, Noise
from lm.training import graphed
from lm.training.graphed import CudaCapture, GraphedStep, graphed_where_possible
from lm.training.statistics import Statistics
from lm.training.step import TrainStep

VOCABULARY = 60
STREAMS = 3
BAD_TOKEN = 0  # its embedding is infinite: a window that holds it cannot be trained
CPU = torch.device("cpu")


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def tensors_of(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Recording(TorchDispatchMode):
    """Every operation inside, with its tensors; leaves what was there before as it was."""

    HOST_READS = frozenset({"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal"})
    # These read, or bring numbers from the host, without an operation.
    FUNCTIONS: ClassVar[dict[object, tuple[str, ...]]] = {
        Tensor: ("tolist", "numpy", "__array__"),
        torch: ("tensor", "as_tensor", "from_numpy"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[object, tuple, dict, object]] = []
        self.created: dict[int, Tensor] = {}
        self.saved: dict[int, tuple[Tensor, torch.UntypedStorage]] = {}
        self.addresses: list[tuple[Tensor, int]] = []
        self.patches = ExitStack()

    def __enter__(self) -> "Recording":
        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        for owner, names in self.FUNCTIONS.items():
            for name in names:
                self.patches.enter_context(patch.object(owner, name, refuse))
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.patches.close()
        for tensor, before in self.saved.values():
            tensor.untyped_storage().copy_(before)
        for tensor in self.created.values():  # recording computes nothing: no result is there yet
            tensor.untyped_storage().fill_(255)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        random = torch.Tag.nondeterministic_seeded in func.tags
        if func._overloadpacket.__name__ in self.HOST_READS or random:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        inputs = tensors_of((args, kwargs))
        for tensor in self._written(func, args, kwargs):
            key = storage(tensor)
            if key not in self.created and key not in self.saved:
                self.saved[key] = tensor, tensor.untyped_storage().clone()
        result = func(*args, **kwargs)
        known = {storage(tensor) for tensor in inputs}
        for tensor in tensors_of(result):
            if storage(tensor) not in known:
                self.created[storage(tensor)] = tensor
        self.operations.append((func, args, kwargs, result))
        self.addresses += [(t, t.data_ptr()) for t in (*inputs, *tensors_of(result))]
        return result

    @staticmethod
    def _written(func, args, kwargs) -> list[Tensor]:
        arguments = func._schema.arguments
        values = [*zip(arguments, args, strict=False)]
        values += [(a, kwargs[a.name]) for a in arguments if a.name in kwargs]
        return tensors_of([v for a, v in values if a.alias_info and a.alias_info.is_write])

    @torch.no_grad()
    def replay(self) -> None:
        for tensor, address in self.addresses:
            assert tensor.data_ptr() == address, "a tensor has moved since it was recorded"
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            known = {storage(tensor) for tensor in tensors_of((args, kwargs))}
            for target, value in zip(tensors_of(result), tensors_of(again), strict=True):
                if storage(target) not in known:
                    target.copy_(value)


@dataclass
class FakeCapture:
    recorded: int = 0
    replayed: int = 0

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        recording = Recording()
        with recording:
            function()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            recording.replay()

        return replay


@pytest.fixture(autouse=True)
def _no_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the CPU's alone, and what they do is no operation that could be recorded."""
    monkeypatch.setattr(native, "library", lambda operands: None)


@pytest.fixture
def _device_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the branches of an accelerator: on the CPU reading a number is free, and done."""
    norms = clipping._norms
    monkeypatch.setattr(clipping, "_norms", lambda gradients, device: norms(gradients, "cuda"))
    monkeypatch.setattr(nll, "float", lambda number: math.nan, raising=False)


pytestmark = pytest.mark.usefixtures("_device_branches")

ADAM = {"lr": 2.0**-6}
FUSED = {
    "plain_sgd": OPTIMIZERS["sgd"](lr=0.5),
    "momentum": OPTIMIZERS["sgd"](lr=0.5, momentum=0.5),
    "adam": OPTIMIZERS["adam"](**ADAM),
    "adamw": OPTIMIZERS["adamw"](**ADAM),
    "adagrad": OPTIMIZERS["adagrad"](**ADAM),
}
RARER = ("radam", "adamax", "adadelta", "rmsprop")
MASKED = {name: OPTIMIZERS[name](**ADAM) for name in ("nadam", "asgd", *RARER)}


@dataclass
class Problem:
    """A model to train for some epochs of windows of two lengths."""

    optim: str = "momentum"
    cell: str = "rnn"
    clip: ClipConfig = field(default_factory=lambda: ClipConfig(norm=0.1))
    passes: int = 1
    locked: bool = False
    initial_state: InitialState = InitialState.zero
    lengths: tuple[int, ...] = (2, 2, 2, 2, 1, 2, 2, 1, 2, 2, 1)
    epochs_begin: tuple[int, ...] = (0, 5, 8)
    bad_steps: tuple[int, ...] = (6,)
    resets_at: tuple[int, ...] = ()
    device: torch.device = CPU
    kernels: Kernels = Kernels.reference

    def build(self) -> TrainStep:
        rates = DropoutConfig(embedding=0.1, between=0.25, output=0.5, locked=self.locked)
        config = CELLS[self.cell](
            embedding_size=6, hidden_size=7, num_layers=2, dropout=rates,
            initial_state=self.initial_state,
        )  # fmt: skip
        model = config.build(VOCABULARY, seed=1).to(self.device)
        model.embedding.weight.data[BAD_TOKEN] = math.inf
        model.compute = Compute(self.device, kernels=self.kernels)
        optimizers = {**FUSED, **MASKED}[self.optim].build(dict(model.named_parameters()))
        method = SkipMethod.found_inf if self.optim in FUSED else SkipMethod.masked
        optimizers.guards = [Guard(guard.optimizer, method) for guard in optimizers.guards]
        return TrainStep(
            model,
            optimizers,
            Statistics(self.device),
            clip=self.clip,
            num_streams=STREAMS,
            passes=self.passes,
            seed=3,
        )

    def window(self, step: int) -> Window:
        """No token occurs twice, so that a sum of atomic additions has no order."""
        draws, length = torch.Generator().manual_seed(step), self.lengths[step]
        words = torch.randperm(VOCABULARY - 1, generator=draws) + 1
        tokens = words[: length * STREAMS].view(length, STREAMS)
        targets = torch.randint(1, VOCABULARY, (length, STREAMS), generator=draws)
        if step in self.bad_steps:
            tokens[-1, 1] = BAD_TOKEN
        resets = None
        if step in self.resets_at:
            resets = torch.zeros(length, STREAMS, dtype=torch.bool)
            resets[1, 1] = True
        return Window(tokens, targets, resets)

    def train(
        self,
        step: TrainStep | GraphedStep,
        *,
        start: int = 0,
        state: State | None = None,
        between: Callable[[int], None] = lambda number: None,
    ) -> list[object]:
        """What can be seen of a run: after each step the state and the norms."""
        seen: list[object] = []
        for number in range(start, len(self.lengths)):
            between(number)
            if number in self.epochs_begin:
                state = None
            state = step(self.window(number), state, step=number, lr_multiplier=0.5 ** (number % 4))
            seen.append([{name: t.clone() for name, t in layer.items()} for layer in state])
            seen.append(step.norms_by_part())
        return seen


def outcome(step: TrainStep) -> dict[str, Tensor]:
    """All that a training step changes, apart from the recurrent state."""
    tensors = {name: p.detach() for name, p in step.model.named_parameters()}
    return {**tensors, **step.optimizers.state_tensors(), **step.statistics.sums}


def assert_same(ours: object, theirs: object) -> None:
    """Equal to the last bit, through lists and dicts."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_same(ours[name], theirs[name])
    elif isinstance(ours, list):
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(ours, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    else:
        assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


def assert_graphs_change_nothing(problem: Problem, *, recorded: int, replayed: int) -> None:
    plain, inner, capture = problem.build(), problem.build(), FakeCapture()
    expected = problem.train(plain)
    assert_same(problem.train(GraphedStep(inner, capture)), expected)
    assert_same(outcome(inner), outcome(plain))
    assert (capture.recorded, capture.replayed) == (recorded, replayed)
    skipped = plain.statistics.read().skipped
    assert skipped == len(problem.bad_steps)


@pytest.mark.parametrize("optim", ["plain_sgd", "momentum", "adamw", "adagrad"])
def test_graphed_training_equals_ordinary_training(optim):
    # Length 2: steps 0 to 2 as they are, from 3 on as a graph; length 1: step 4 as it is.
    assert_graphs_change_nothing(Problem(optim), recorded=2, replayed=7)


@pytest.mark.parametrize(
    "problem",
    [
        Problem("adam", cell="lstm"),
        Problem(passes=2),
        Problem(locked=True),
        Problem(clip=ClipConfig(norm=None, value=0.001)),
        Problem(bad_steps=(3, 4, 7, 8)),
    ],
    ids=["lstm", "accumulated", "locked", "clipped_by_value", "skipped_at_the_seams"],
)
def test_every_setting_of_the_step_is_graphed(problem):
    assert_graphs_change_nothing(problem, recorded=2, replayed=7)


@pytest.mark.parametrize(
    "optim",
    ["nadam", "asgd", *(pytest.param(name, marks=pytest.mark.slow) for name in RARER)],
)
def test_optimizers_that_are_masked_are_graphed(optim, monkeypatch):
    as_on_a_gpu(monkeypatch, optim)
    assert_graphs_change_nothing(Problem(optim), recorded=2, replayed=7)


def test_recording_waits_for_the_optimizer_state_that_skipped_steps_do_not_make(monkeypatch):
    as_on_a_gpu(monkeypatch, "rmsprop")
    problem = Problem("rmsprop", bad_steps=(0, 1, 2, 3))
    assert_graphs_change_nothing(problem, recorded=2, replayed=5)


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, optim: str) -> None:
    """Let a capturable implementation run on the CPU, where it counts with host numbers."""
    monkeypatch.setitem(Recording.FUNCTIONS, torch, ())
    module = sys.modules[f"torch.optim.{optim}"]
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
    options = {"capturable": True, "foreach": True}
    monkeypatch.setattr(groups, "_implementation", lambda kind, parameters: options)


def test_learned_initial_state_is_trained_in_ordinary_steps():
    problem = Problem("adam", initial_state=InitialState.learned)
    # Steps 0, 5 and 8 begin an epoch.
    assert_graphs_change_nothing(problem, recorded=2, replayed=4)


def test_windows_with_resets_are_ordinary_steps_in_between():
    problem = Problem(resets_at=(1, 6, 8))
    assert_graphs_change_nothing(problem, recorded=2, replayed=4)


def test_many_lengths_do_not_make_many_graphs():
    problem = Problem(lengths=(1, 2, 3, 4, 5, 6) * 2, bad_steps=())
    assert_graphs_change_nothing(problem, recorded=4, replayed=4)


def test_optimizer_state_that_moved_is_recorded_anew():
    problem = Problem("adam")
    plain, inner, capture = problem.build(), problem.build(), FakeCapture()

    def reload(number: int) -> None:
        if number == 9:
            tensors = {n: t.clone() for n, t in inner.optimizers.state_tensors().items()}
            inner.optimizers.load_state(tensors, inner.optimizers.state_scalars())

    expected = problem.train(plain)
    assert_same(problem.train(GraphedStep(inner, capture), between=reload), expected)
    assert_same(outcome(inner), outcome(plain))
    assert (capture.recorded, capture.replayed) == (4, 7)


def test_device_read_in_a_cell_is_an_error_that_names_the_way_out(monkeypatch):
    original = RNN.step

    def reading(self, x, state, weights):
        assert state["h"].sum().item() < math.inf
        return original(self, x, state, weights)

    monkeypatch.setattr(RNN, "step", reading)
    problem = Problem()
    with pytest.raises(ConfigError, match="not permitted when stream is capturing") as error:
        problem.train(GraphedStep(problem.build(), FakeCapture()))
    assert "runtime.kernels=torch" in str(error.value)


def test_run_stopped_and_resumed_with_graphs_equals_the_straight_run(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 2)
    recipe = Recipe(tmp_path, "rnn", trainer={"window": 4, "valid_every": 5}, steps=11)
    captures = []

    def on_device(trainer):
        trainer.model.compute = Compute(kernels=Kernels.reference)
        guards = trainer.optimizers.guards
        trainer.optimizers.guards = [Guard(g.optimizer, SkipMethod.found_inf) for g in guards]

    def graphs(trainer):
        on_device(trainer)
        captures.append(FakeCapture())
        trainer.train_step = GraphedStep(trainer.train_step, captures[-1])

    straight = recipe.run("straight", spoil=on_device)
    assert recipe.run("graphed", spoil=graphs) == straight
    assert recipe.run("resumed", stop_after=5, spoil=graphs).startswith("stopped")
    assert recipe.run("resumed", spoil=graphs) == straight
    assert [capture.replayed for capture in captures] == [7, 2, 3]


def test_fixed_noise_draws_the_numbers_of_ordinary_noise_at_one_address():
    like = torch.zeros(4, 1)
    fixed, addresses = FixedNoise(seed=7, step=0, num_streams=6), set()
    for step in (0, 3, 4):
        fixed = fixed.at(step)
        for streams in (slice(0, 2), slice(2, 6)):
            size = (4, streams.stop - streams.start, 5)
            mask, expected = (
                noise.for_streams(streams).keep_mask("x", size, 0.3, stream_dim=1, like=like)
                for noise in (fixed, Noise(7, step, 6))
            )
            assert torch.equal(mask, expected)
            addresses.add((streams.start, mask.data_ptr()))
    assert len(addresses) == 2


def test_graphs_are_used_on_cuda_with_fast_kernels_only(monkeypatch):
    monkeypatch.setattr(graphed, "CudaCapture", lambda device: FakeCapture())
    cuda, step = torch.device("cuda"), Problem().build()

    def is_graphed(device: torch.device, kernels: Kernels) -> bool:
        step.model.compute = Compute(device, kernels=kernels)
        return isinstance(graphed_where_possible(step), GraphedStep)

    used = {kernels for kernels in Kernels if is_graphed(cuda, kernels)}
    assert used == {Kernels.auto, Kernels.fast}
    assert not is_graphed(CPU, Kernels.fast)
    with patch.object(step.model, "sampler", Sampler(torch.arange(9), 1, 2, 0.5)):
        assert not is_graphed(cuda, Kernels.fast)
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert not is_graphed(cuda, Kernels.fast)
    step.optimizers.guards = [Guard(guard.optimizer) for guard in step.optimizers.guards]
    assert not is_graphed(cuda, Kernels.fast)


def test_fused_optimizers_tell_torch_that_they_may_be_captured():
    class OnCuda:
        device, dtype = torch.device("cuda"), torch.float32

    implementation = groups._implementation
    assert implementation(torch.optim.Adam, [OnCuda()]) == {"fused": True, "capturable": True}
    assert implementation(torch.optim.SGD, [OnCuda()]) == {"fused": True}
    assert implementation(torch.optim.NAdam, [OnCuda()]) == {"capturable": True}


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", [Kernels.auto, Kernels.fast])
@pytest.mark.parametrize("optim", [*FUSED, *MASKED])
def test_graphs_on_a_gpu_equal_ordinary_training_without_a_device_read(optim, kernels):
    device = torch.device("cuda")
    problem = Problem(optim, device=device, kernels=kernels)
    plain, inner = problem.build(), problem.build()
    plain.model.compute.choices = inner.model.compute.choices
    plain.optimizers.keep_lr_on_device()
    problem.train(plain)
    step, state = graphed_where_possible(inner), None
    assert isinstance(step, GraphedStep)
    recording = (0, 3, 4, 7)  # the first step, and those around the making of a graph
    try:
        for number in range(len(problem.lengths)):
            mode = "default" if number in recording else "error"
            torch.cuda.set_sync_debug_mode(mode)
            state = None if number in problem.epochs_begin else state
            rate = 0.5 ** (number % 4)
            state = step(problem.window(number), state, step=number, lr_multiplier=rate)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same(outcome(inner), outcome(plain))


@pytest.mark.gpu
def test_capture_on_a_gpu_does_not_execute():
    total, one = torch.zeros(3, device="cuda"), torch.ones(3, device="cuda")

    def add() -> None:
        total.add_(one)

    replay = CudaCapture(torch.device("cuda")).record(add)
    assert total.tolist() == [0.0] * 3
    replay()
    assert total.tolist() == [1.0] * 3
