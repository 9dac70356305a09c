"""What inspection finds, for TensorBoard: scalars, histograms and pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm.inspection.activations import LayerActivations
from lm.inspection.context import EffectiveContext
from lm.inspection.gradient_flow import GradientFlow
from lm.inspection.matrices import Spectrum
from lm.inspection.report import Inspection, flows_by_part
from lm.metrics import tags
from lm.metrics.perplexity import exp
from lm.metrics.writer import MetricsWriter


def write_board(
    folder: Path, inspections: list[Inspection], pictures: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Each inspection as a TensorBoard run of its own, the pictures of all with the first.

    Args:
        folder: gets `tensorboard/` and `metrics.jsonl`, in a folder each of several inspections.
    """
    for k, found in enumerate(inspections):
        place = folder if len(inspections) == 1 else folder / f"{k} {found.label}".replace("/", "-")
        place.mkdir(exist_ok=True)
        writer = MetricsWriter(place, tokens_axis=False)
        try:
            writer.scalars(found.step, 0, scalars(found))
            write_histograms(writer, found.step, 0, found.activations)
            writer.text(found.step, 0, tags.INSPECTION, found.describe())
            for name, image in pictures.items() if k == 0 else ():
                tag = tags.INSPECTED_PICTURE.format(name=name)
                writer.image(found.step, 0, tag, image)
        finally:
            writer.close()


def scalars(found: Inspection) -> dict[str, float]:
    """Everything of an inspection that is one number."""
    return {
        **flow_scalars(found.flow),
        **activation_scalars(found.activations),
        **_matrix_scalars(found.matrices),
        **_context_scalars(found.context),
        **update_scalars(found.update_ratios or {}),
        **({} if found.clip is None else {tags.SUGGESTED_CLIP: found.clip.suggested}),
    }


def flow_scalars(flow: GradientFlow) -> dict[str, float]:
    """Half-lives and reach."""
    values = {tags.HALF_LIFE: flow.whole.half_life, tags.REACH: float(flow.whole.reach)}
    for part, found in flows_by_part(flow).items():
        values[tags.HALF_LIFE_PART.format(part=part)] = found.half_life
    return values


def activation_scalars(layers: list[LayerActivations]) -> dict[str, float]:
    """Saturation by gate, dead units, and the median unit's half-life."""
    values: dict[str, float] = {}
    for k, layer in enumerate(layers):
        part = f"layers.{k}"
        values[tags.DEAD_UNITS.format(part=part)] = float(layer.dead_units)
        for name, found in {**layer.gates, **layer.states}.items():
            if found.saturated is not None:
                values[tags.SATURATION.format(part=f"{part}.{name}")] = found.saturated
        if layer.half_lives is not None:
            values[tags.UNIT_HALF_LIFE.format(part=part)] = float(np.median(layer.half_lives))
    return values


def update_scalars(ratios: Mapping[str, float]) -> dict[str, float]:
    """Update-to-weight ratio by parameter."""
    return {tags.UPDATE_RATIO.format(parameter=name): ratio for name, ratio in ratios.items()}


def write_histograms(
    writer: MetricsWriter, step: int, tokens: int, layers: list[LayerActivations]
) -> None:
    """The distributions of gates, candidates, states and units' half-lives."""
    for k, layer in enumerate(layers):
        for name, found in {**layer.gates, **layer.states}.items():
            tag = tags.DISTRIBUTION.format(part=f"layers.{k}.{name}")
            writer.histogram(step, tokens, tag, found.sample)
        if layer.half_lives is not None:
            tag = tags.DISTRIBUTION.format(part=f"layers.{k}.log10_half_life")
            writer.histogram(step, tokens, tag, np.log10(layer.half_lives))


def _matrix_scalars(layers: list[list[Spectrum]]) -> dict[str, float]:
    values = {}
    for k, layer in enumerate(layers):
        for found in layer:
            matrix = f"layers.{k}.{found.name}"
            values[tags.LARGEST_SINGULAR_VALUE.format(matrix=matrix)] = found.norm
            if found.radius is not None:
                values[tags.SPECTRAL_RADIUS.format(matrix=matrix)] = found.radius
    return values


def _context_scalars(context: EffectiveContext | None) -> dict[str, float]:
    if context is None:
        return {}
    return {
        tags.PERPLEXITY_WITH_RESETS.format(length=n): exp(loss)
        for n, loss in zip(context.lengths, context.reset, strict=True)
    }
