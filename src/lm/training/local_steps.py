"""Steps that each process makes by itself, and the averages in between: for links that are slow.

With local SGD (Stich 2019, Local SGD converges fast and communicates little, algorithm 1) the
processes send nothing for H steps, each training on its own streams, and then average their
weights. Post-local SGD begins so only after some steps (Lin et al. 2020). DiLoCo (Douillard et al.
2023, algorithm 1) takes the change over H steps for a gradient, by which an outer optimiser with
Nesterov's momentum moves what all begin from.

The optimiser's state and the averages of weights are averaged with the weights (as SlowMo may:
Wang et al. 2020), so that between two rounds all processes are the same again: that is where a run
is logged, validated, saved and stopped.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lm.errors import CheckpointError
from lm.runtime.processes import Processes
from lm.runtime.untrusted import REMEDY
from lm.training.communication import CommunicationConfig


class LocalSteps:
    """When processes are apart, and how they come together.

    Args:
        weight: this process's share of the streams.

    Attributes:
        velocity: of the outer optimiser, by name; none without momentum.
    """

    def __init__(
        self,
        processes: Processes,
        parameters: Mapping[str, nn.Parameter],
        config: CommunicationConfig,
        weight: float,
    ) -> None:
        self._processes = processes
        self._parameters = dict(parameters)
        self._config = config
        self._weight = weight
        self._anchor: dict[str, Tensor] = {}
        self.velocity: dict[str, Tensor] = {}
        if self.on and config.outer_momentum:
            self.velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @property
    def on(self) -> bool:
        """There are steps that processes make by themselves."""
        return self._config.local_steps > 1 and not self._processes.alone

    def apart(self, step: int) -> bool:
        """Whether step number `step`, counted from 0, is one of those."""
        return self.on and step >= self._config.local_after

    def due(self, step: int) -> bool:
        """Whether the round ends with step number `step`."""
        return (step + 1) % self._config.local_steps == 0

    def begin(self) -> None:
        """Note where a round begins, unless it has begun."""
        if not self._anchor:
            self._anchor = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def come_together(self, state: Iterable[Tensor]) -> None:
        """End the round: average weights and `state`, and let the outer optimiser move."""
        config = self._config
        tensors = [*(p.data for p in self._parameters.values()), *state]
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.ndim:  # others are counts
                tensor.mul_(self._weight)
                self._processes.add_up(tensor)
        for name, parameter in self._parameters.items():
            change = self._anchor[name] - parameter
            if name in self.velocity:
                velocity = self.velocity[name].mul_(config.outer_momentum).add_(change)
                change = change + config.outer_momentum * velocity
            elif config.outer_lr == 1.0:
                continue  # the average itself, without rounding it twice
            parameter.copy_(self._anchor[name] - config.outer_lr * change)
        self._anchor = {}

    def load(self, velocity: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; one of a process alone has none.

        Raises:
            CheckpointError: it is not of these parameters.
        """
        for name, own in self.velocity.items() if velocity else ():
            if name not in velocity or velocity[name].shape != own.shape:
                raise CheckpointError(
                    f"the checkpoint's exchange/velocity/{name} does not fit", REMEDY
                )
            own.copy_(velocity[name])
