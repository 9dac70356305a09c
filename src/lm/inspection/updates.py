"""Update-to-weight ratios: how far a training step moves each parameter, relative to its size."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# A common rule of thumb for what trains well is a ratio near 1e-3 (Karpathy, CS231n, 2016).
USUAL = 1e-3


class UpdateRatios:
    """‖W_after − W_before‖ / ‖W_before‖ by parameter; remembers the weights when it is made."""

    @torch.no_grad()
    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def read(self) -> dict[str, float]:
        """The ratios since; of a parameter that was all zero it is the distance moved."""
        found = {}
        for name, parameter in self._parameters.items():
            before = self._before[name]
            found[name] = _ratio(parameter - before, before)
        return found


def _ratio(moved: Tensor, before: Tensor) -> float:
    distance, size = map(float, torch.stack([moved.norm(), before.norm()]).tolist())
    return distance / size if size else distance
