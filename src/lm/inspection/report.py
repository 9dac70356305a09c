"""What `lm inspect` found in a checkpoint: for people, and as JSON."""

import math
import statistics
from dataclasses import dataclass

from lm.inspection.activations import LayerActivations
from lm.inspection.clip_advice import ClipAdvice
from lm.inspection.context import EffectiveContext
from lm.inspection.gradient_flow import Flow, GradientFlow
from lm.inspection.matrices import Spectrum
from lm.inspection.updates import USUAL
from lm.metrics.perplexity import exp


@dataclass(frozen=True, slots=True)
class Inspection:
    """Of one checkpoint.

    Attributes:
        label: what tells the model from the others it is shown with.
        checkpoint: its folder.
        step: of training that it was saved at.
        text: that was read, such as `valid of ptb`.
        window: steps of truncated back-propagation in training.
        context: None where it was not asked for.
        lr, update_ratios, clip: of the rehearsed steps; None where there were none.
    """

    label: str
    checkpoint: str
    step: int
    text: str
    window: int
    flow: GradientFlow
    activations: list[LayerActivations]
    matrices: list[list[Spectrum]]
    context: EffectiveContext | None = None
    lr: float | None = None
    update_ratios: dict[str, float] | None = None
    clip: ClipAdvice | None = None

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "label": self.label,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "text": self.text,
            "window": self.window,
            "gradient_flow": self.flow.to_json(),
            "activations": [layer.to_json() for layer in self.activations],
            "matrices": [[found.to_json() for found in layer] for layer in self.matrices],
            "context": None if self.context is None else self.context.to_json(),
            "lr": self.lr,
            "update_ratios": self.update_ratios,
            "clip": None if self.clip is None else self.clip.to_json(),
        }

    def describe(self) -> str:
        """Some lines for people."""
        lines = [
            f"{self.label}  {self.checkpoint}, {self.text}",
            *_about_flow(self.flow, self.window),
            *_about_activations(self.activations),
            *_about_matrices(self.matrices),
        ]
        if self.context is not None:
            lines += _about_context(self.context)
        if self.update_ratios is not None:
            lines += _about_updates(self.update_ratios, self.lr or 0.0)
        if self.clip is not None:
            lines += [
                f"  clipping   trainer.clip.norm={self.clip.suggested:g} suggested:",
                *(f"             {reason}" for reason in self.clip.reasons),
            ]
        return "\n".join(lines)


def steps(half_life: float) -> str:
    """A half-life for people."""
    return f"{half_life:.1f}" if math.isfinite(half_life) else "∞ (it does not fall)"


def _about_flow(flow: GradientFlow, window: int) -> list[str]:
    whole = flow.whole
    reach = f"{whole.reach}{'+' if whole.reach == flow.num_lags else ''}"
    lines = [
        f"  gradients  half-life {steps(whole.half_life)} steps; above 1 % of the largest up to lag"
        f" {reach} of {flow.num_lags}; {flow.num_positions} positions; trained in windows of"
        f" {window}"
    ]
    for k, layer in enumerate(flow.layers):
        parts = ", ".join(f"{name} {steps(part.half_life)}" for name, part in layer.items())
        lines.append(f"             layer {k}: {parts}")
    return lines


def _about_activations(layers: list[LayerActivations]) -> list[str]:
    lines = []
    for k, layer in enumerate(layers):
        gates = ", ".join(
            f"{name} {found.low:.0%} low {found.high:.0%} high"
            for name, found in layer.gates.items()
            if found.low is not None and found.high is not None
        )
        lines.append(f"  {'units' if k == 0 else '':9}  layer {k}: {gates or 'no gates'}")
        dead = f"{layer.dead_units} of {layer.num_units} units never move"
        if layer.half_lives is not None:
            low, middle, high = _quartiles(layer.half_lives)
            dead += (
                f"; half of what a unit holds is forgotten in {middle:.1f} steps (a quarter of them"
                f" in under {low:.1f}, a quarter in over {high:.1f})"
            )
        lines.append(f"             {dead}")
    return lines


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def _about_matrices(layers: list[list[Spectrum]]) -> list[str]:
    lines: list[str] = []
    for k, layer in enumerate(layers):
        for found in layer:
            radius = "" if found.radius is None else f"spectral radius {found.radius:.3f}, "
            singular = f"singular values {found.norm:.3f} to {found.singular_values[-1]:.3g}"
            start = "" if lines else "matrices"
            lines.append(f"  {start:9}  layer {k} {found.name}: {radius}{singular}")
    return lines


def _about_context(context: EffectiveContext) -> list[str]:
    shown = ", ".join(
        f"{n}: {exp(loss):.1f}" for n, loss in zip(context.lengths, context.reset, strict=True)
    )
    worth = context.effective
    enough = f"{worth} tokens are" if worth is not None else f"not even {context.lengths[-1]} are"
    return [
        f"  context    perplexity {exp(context.carried):.2f} with the state carried;"
        f" {enough} enough to come within 1 %",
        f"             reset every {shown}",
    ]


def _about_updates(ratios: dict[str, float], lr: float) -> list[str]:
    ordered = sorted(ratios.items(), key=lambda item: item[1])
    (slowest, least), (fastest, most) = ordered[0], ordered[-1]
    return [
        f"  updates    a step moves a parameter by {statistics.median(ratios.values()):.1e} of its"
        f" size (the median; {USUAL:g} is usual) at lr {lr:.3g}",
        f"             least {slowest} {least:.1e}, most {fastest} {most:.1e}",
    ]


def flows_by_part(flow: GradientFlow) -> dict[str, Flow]:
    """`layers.0.c` → flow, the whole states as `layers.0`."""
    return {
        f"layers.{k}" + ("" if name == "state" else f".{name}"): part
        for k, layer in enumerate(flow.layers)
        for name, part in layer.items()
    }
