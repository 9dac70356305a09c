"""The training step as a CUDA graph: recorded once for each window length, then replayed.

A step is hundreds of kernels that take microseconds each, less than it takes Python to launch them
one by one; a graph launches all of them at once. In return a graph works on fixed addresses: what
differs from step to step (tokens, carried state, dropout masks, learning rate) is written into
buffers before each replay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lm.data.streams import Window
from lm.errors import ConfigError
from lm.models.base import State, detach
from lm.optim.clipping import GradientNorms
from lm.runtime.compute import Kernels
from lm.runtime.randomness import FixedNoise
from lm.training.step import TrainStep

# Ordinary steps before the first graph: kernels are measured and compiled, optimisers make their
# state, libraries their work space.
_WARM_UP_STEPS = 3
# An epoch has windows of two lengths; whoever draws lengths at random gets few of them as graphs.
_MAX_LENGTHS = 4


@runtime_checkable
class Capture(Protocol):
    """Turns a function into something that does its device work again."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Note what `function` does on the device without doing it; the result does it."""


class CudaCapture:
    """CUDA graphs that share one memory pool, which they may as they never run at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
        ):
            function()
        return graph.replay


@dataclass(slots=True)
class _Length:
    """What windows of one length have of their own.

    Attributes:
        tokens, targets: [T, B], written before each step.
        warm: a step that could have been recorded has run.
        replay: the recorded step.
        norms: of the gradients of its last replay.
    """

    tokens: Tensor
    targets: Tensor
    noise: FixedNoise
    warm: bool = False
    replay: Callable[[], None] | None = None
    norms: GradientNorms | None = None


class GraphedStep:
    """A `TrainStep` that runs as a graph wherever it is the same device work as before.

    Not so a window with resets, whose cuts differ from one to the next, nor the first window of
    an epoch if the initial state is learned: these run as ordinary steps, in between.

    The state that a call returns is the graphs' own buffer: right until the next call.
    """

    def __init__(self, train: TrainStep, capture: Capture) -> None:
        train.optimizers.keep_lr_on_device()
        self._train = train
        self._capture = capture
        self._parameters = list(train.model.parameters())
        self._learned_start = len(train.model.initial) > 0
        initial = detach(train.model.initial_state(train.num_streams))
        self._state = [
            {name: torch.zeros_like(t) for name, t in layer.items()} for layer in initial
        ]
        self._lengths: dict[int, _Length] = {}
        self._steps = 0
        self._addresses: tuple[int, ...] = ()

    def __call__(
        self, window: Window, state: State | None, *, step: int, lr_multiplier: float
    ) -> State:
        """Train on a window; the state to carry into the next one."""
        length = self._length(window, state)
        if length is None:
            return self._train(window, state, step=step, lr_multiplier=lr_multiplier)
        self._train.optimizers.set_lr(lr_multiplier)
        length.tokens.copy_(window.tokens, non_blocking=True)
        length.targets.copy_(window.targets, non_blocking=True)
        length.noise = length.noise.at(step)
        self._enter(state)
        self._forget_if_moved()
        if length.replay is None and length.warm and self._steps >= _WARM_UP_STEPS:
            self._record(length)
        if length.replay is None:
            self._update(length)
            length.warm = self._train.optimizers.has_state
        else:
            length.replay()
            self._train.norms = length.norms
        self._steps += 1
        return self._state

    def norms_by_part(self) -> dict[str, float]:
        """Pre-clip gradient norm of the last step by part of the model; reads the device."""
        return self._train.norms_by_part()

    def _length(self, window: Window, state: State | None) -> _Length | None:
        """What belongs to this window's length; None where the step has to be an ordinary one."""
        if window.resets is not None or (state is None and self._learned_start):
            return None
        key = len(window.tokens)
        if key not in self._lengths and len(self._lengths) < _MAX_LENGTHS:
            device = self._train.model.device
            self._lengths[key] = _Length(
                torch.empty_like(window.tokens, device=device),
                torch.empty_like(window.targets, device=device),
                FixedNoise(self._train.seed, 0, self._train.num_streams),
            )
        return self._lengths.get(key)

    def _enter(self, state: State | None) -> None:
        """Put the state where the step reads it; what the last call returned is there already."""
        if state is None:
            torch._foreach_zero_(_tensors(self._state))
        elif state is not self._state:
            _copy(state, self._state)

    def _update(self, length: _Length) -> None:
        """The step on the buffers: run as it is, or recorded."""
        state = self._train.update(length.tokens, length.targets, self._state, noise=length.noise)
        _copy(state, self._state)

    def _record(self, length: _Length) -> None:
        """Record the step.

        Raises:
            ConfigError: something in it cannot be recorded, for instance a device read in a cell.
        """
        try:
            length.replay = self._capture.record(partial(self._update, length))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConfigError(
                f"the training step cannot be captured in a CUDA graph: {error}",
                "Set runtime.kernels=torch to train without one.",
            ) from error
        length.norms = self._train.norms
        self._train.optimizers.zero_grad()  # its memory is the graph's: of no meaning elsewhere

    def _forget_if_moved(self) -> None:
        """Drop the graphs after parameters or optimiser state have been replaced, not refilled."""
        train = self._train
        state = (guard.optimizer.state.values() for guard in train.optimizers.guards)
        optimizer = chain.from_iterable(kept.values() for kept in chain.from_iterable(state))
        averages = train.averages.tensors.values()
        tensors = chain(self._parameters, train.statistics.sums.values(), optimizer, averages)
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        if addresses != self._addresses:
            self._addresses = addresses
            for length in self._lengths.values():
                length.replay = None


def graphed_where_possible(step: TrainStep) -> TrainStep | GraphedStep:
    """The step as graphs on an NVIDIA GPU; as it is elsewhere, and where it reads the device.

    That is under `runtime.anomaly`, with optimisers that keep numbers on the host, with a sampled
    softmax, whose words the host draws, with an adaptive one, whose work depends on the words, and
    with several processes, since what they exchange in a graph was never tried on GPUs.
    The plain kernels (`torch`, `reference`) are there to be compared with and run as anyone would
    run them.
    """
    compute = step.model.compute
    fast = compute.device.type == "cuda" and compute.kernels in (Kernels.auto, Kernels.fast)
    on_device = step.optimizers.capturable and step.model.sampler is None
    on_device = on_device and step.model.head.on_device
    together = not step.processes.alone
    if not fast or not on_device or together or torch.is_anomaly_enabled():
        return step
    return GraphedStep(step, CudaCapture(compute.device))


def _tensors(state: State) -> list[Tensor]:
    return [tensor for layer in state for tensor in layer.values()]


def _copy(source: State, target: State) -> None:
    """By name: layers may list their tensors in another order."""
    same_order = [layer[name] for layer, own in zip(source, target, strict=True) for name in own]
    torch._foreach_copy_(_tensors(target), same_order)
