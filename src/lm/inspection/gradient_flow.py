"""How far back a model learns: the gradient of a loss with respect to ever earlier states.

For a position t and a lag k, ∂L_t/∂s_{t−k} is the derivative of L_t = −log p(target_t) with respect
to the state after token t−k was read, along every path that leads from there to L_t: onwards in
time, and upwards through the layers. It is what truncated back-propagation multiplies up in
∏ ∂s_i/∂s_{i−1} (Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural
networks, equation 5): where its norm vanishes over the lag, what was read there cannot be learned
from; where it grows, it explodes. h and c are coordinates of one state: the norm over both is the
whole state's, and ∂L/∂c is taken at fixed h.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lm.data.corpus import Unit
from lm.data.store import TokenStore
from lm.inspection.watch import Reading, Watch, places_at_once, readings
from lm.models import RecurrentModel
from lm.runtime.compute import exact_products

_REACHED = 0.01
# Slower than one half in so many times the lags looked at is not told from no decay at all.
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Flow:
    """Norms of the gradient by lag, of one state or part of it.

    Attributes:
        mean: over positions, for k = 0 … K.
        low, high: 10 % and 90 % quantiles over positions.
    """

    mean: list[float]
    low: list[float]
    high: list[float]

    @classmethod
    def of(cls, norms: NDArray[np.float64]) -> "Flow":
        """Of the norms [positions, K + 1]."""
        low, high = np.quantile(norms, [0.1, 0.9], axis=0)
        return cls(norms.mean(0).tolist(), low.tolist(), high.tolist())

    @property
    def half_life(self) -> float:
        """Steps in which the mean norm halves; infinite where it does not fall."""
        return half_life(self.mean)

    @property
    def reach(self) -> int:
        """The largest lag whose mean norm is at least a hundredth of the largest."""
        threshold = _REACHED * max(self.mean)
        return max(k for k, norm in enumerate(self.mean) if norm >= threshold)

    def to_json(self) -> dict[str, object]:
        """Plain data; an infinite half-life is None."""
        steps = self.half_life
        return {
            "half_life": steps if math.isfinite(steps) else None,
            "reach": self.reach,
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True, slots=True)
class GradientFlow:
    """The gradient's norm over lag.

    Attributes:
        num_positions: averaged over.
        whole: over the state of all layers.
        layers: per layer its whole state as `state`, and each tensor of it by name.
    """

    num_positions: int
    whole: Flow
    layers: list[dict[str, Flow]]

    @property
    def num_lags(self) -> int:
        """K, the largest lag."""
        return len(self.whole.mean) - 1

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        layers = [{name: flow.to_json() for name, flow in layer.items()} for layer in self.layers]
        return {
            "num_positions": self.num_positions,
            "whole": self.whole.to_json(),
            "layers": layers,
        }


def half_life(norms: list[float]) -> float:
    """Steps in which norms over lag halve, by a fit of a · 2^(−k / half-life) to lags k ≥ 1.

    Least squares on the logarithms, weighted by the norms themselves: exact where the decay is
    exponential, and decided elsewhere by the lags that carry the gradient rather than by a tail
    many orders of magnitude below. Lag 0 is left out: its gradient has crossed no recurrence.

    Returns:
        steps; infinite where the norms do not fall, 0 where there is nothing after lag 0.
    """
    values = np.array(norms[1:], np.float64)
    lags = np.arange(1, len(norms), dtype=np.float64)
    some = values > 0
    if some.sum() < 2:
        return 0.0
    values, lags = values[some], lags[some]
    weights = values / values.sum()
    logs = np.log2(values)
    from_mean = lags - (weights * lags).sum()
    slope = (weights * from_mean * logs).sum() / (weights * from_mean**2).sum()
    return math.inf if -slope * len(norms) * _LONGEST < 1 else float(-1 / slope)


def measure_flow(
    model: RecurrentModel,
    store: TokenStore,
    unit: Unit,
    *,
    lags: int,
    positions: int,
) -> GradientFlow:
    """Over evenly spaced positions of a split, after as many tokens of warm-up as lags.

    Raises:
        DataError: the split is too short.
    """
    at_once = places_at_once(model, lags + 1)
    places = readings(
        model, store, unit, steps=lags + 1, warm_up=lags, count=positions, at_once=at_once
    )
    with exact_products():
        return _joined([_norms(model, reading)[0] for reading in places])


def flow_of_reading(model: RecurrentModel, reading: Reading) -> tuple[GradientFlow, Watch]:
    """Of the last position of a window, in each of its streams; and what was watched."""
    norms, watch = _norms(model, reading)
    return _joined([norms]), watch


# Per layer the squared norms [B, K + 1] by name of the state's tensor.
Norms = list[dict[str, Float[Tensor, "B K"]]]


def _joined(collected: list[Norms]) -> GradientFlow:
    """The flow over all positions of several readings."""
    layers = [
        {name: torch.cat([norms[k][name] for norms in collected]) for name in layer}
        for k, layer in enumerate(collected[0])
    ]
    wholes = [torch.stack(list(layer.values())).sum(0) for layer in layers]
    whole = torch.stack(wholes).sum(0)
    return GradientFlow(
        num_positions=len(whole),
        whole=_flow(whole),
        layers=[
            {"state": _flow(state), **{name: _flow(part) for name, part in layer.items()}}
            for layer, state in zip(layers, wholes, strict=True)
        ],
    )


def _flow(squares: Float[Tensor, "B K"]) -> Flow:
    return Flow.of(squares.sqrt().numpy())


@torch.enable_grad()
def _norms(model: RecurrentModel, reading: Reading) -> tuple[Norms, Watch]:
    """Squared norms of ∂L/∂s at every lag, L being each stream's loss at the last step."""
    start = [
        {name: tensor.requires_grad_() for name, tensor in layer.items()} for layer in reading.state
    ]
    watch, features = Reading(reading.window, start).watched(model)
    targets = reading.window.targets[-1].to(model.device)
    loss = -model.head.log_prob(features[-1]).gather(1, targets[:, None]).sum()
    return _squares(model, watch, loss), watch


def _squares(model: RecurrentModel, watch: Watch, loss: Tensor) -> Norms:
    found: Norms = []
    names = [cell.learned_states for cell in model.cells]  # not what is bookkeeping
    nodes = [
        state[name]
        for states, own in zip(watch.states, names, strict=True)
        for name in own
        for state in reversed(states)
    ]
    gradients = iter(torch.autograd.grad(loss, nodes, allow_unused=True))
    for states, own in zip(watch.states, names, strict=True):
        layer = {}
        for name in own:
            of_lags = [next(gradients) for _ in states]
            zero = torch.zeros(len(states[0][name]), dtype=torch.float64)
            layer[name] = torch.stack(
                [zero if g is None else g.double().square().sum(1).cpu() for g in of_lags], 1
            )
        found.append(layer)
    return found
