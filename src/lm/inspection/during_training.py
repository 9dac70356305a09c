"""Inspection of a training step, every `trainer.inspect_every` of them.

Nothing of it is random and nothing of the run is changed, so that a run which is watched comes to
the same numbers as one that is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lm.data.streams import Window
from lm.inspection.activations import LayerActivations, activations
from lm.inspection.board import (
    activation_scalars,
    flow_scalars,
    update_scalars,
    write_histograms,
)
from lm.inspection.gradient_flow import GradientFlow, flow_of_reading
from lm.inspection.updates import UpdateRatios
from lm.inspection.watch import Reading
from lm.metrics.writer import MetricsWriter
from lm.models import RecurrentModel
from lm.models.base import State, detach, slice_streams
from lm.runtime.compute import exact_products

# More streams than these tell little more.
_MOST_STREAMS = 32


@dataclass(slots=True)
class InspectedStep:
    """What a step was like.

    Attributes:
        flow: over lags within the window, from its last position.
        update_ratios: by parameter, once the step is done.
    """

    flow: GradientFlow
    activations: list[LayerActivations]
    update_ratios: dict[str, float] = field(default_factory=dict)


@contextmanager
def inspected_step(
    model: RecurrentModel, window: Window, state: State | None
) -> Iterator[InspectedStep]:
    """Look at a step before it is taken, and at how far it went after.

    Args:
        state: that enters the window; None is the initial one.
    """
    num_streams = min(window.tokens.shape[1], _MOST_STREAMS)
    if state is None:
        state = model.initial_state(window.tokens.shape[1])
    reading = Reading(window.first(num_streams), detach(slice_streams(state, slice(num_streams))))
    with exact_products():
        flow, watch = flow_of_reading(model, reading)
    found = InspectedStep(flow, activations(model, watch))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ratios = UpdateRatios(parameters)
    yield found
    found.update_ratios = ratios.read()


def write_step(writer: MetricsWriter, step: int, tokens: int, found: InspectedStep) -> None:
    """Scalars and histograms."""
    scalars = {
        **flow_scalars(found.flow),
        **activation_scalars(found.activations),
        **update_scalars(found.update_ratios),
    }
    writer.scalars(step, tokens, scalars)
    write_histograms(writer, step, tokens, found.activations)
