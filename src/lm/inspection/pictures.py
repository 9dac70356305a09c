"""The pictures of `lm inspect`, for one checkpoint or several side by side.

matplotlib is an extra (`plot`): it is imported where a picture is drawn.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm.inspection.canvas import Figure, colour, figure
from lm.inspection.clip_advice import ClipAdvice
from lm.inspection.report import Inspection, flows_by_part, steps
from lm.inspection.updates import USUAL
from lm.metrics.perplexity import exp

# On an axis of half-lives, one that is infinite stands at so many times the lags looked at.
_BEYOND = 10
# Over so many times a log axis has powers of ten enough to be read by.
_CROWDED = 30


def gradient_flow(inspections: list[Inspection]) -> Figure:
    """How far back do these models learn? Norms over lag, and half-lives."""
    drawn = figure(11, 4.4)
    curves, side = drawn.subplots(1, 2, width_ratios=[3, 2])
    for k, found in enumerate(inspections):
        whole = found.flow.whole
        lags, scale = np.arange(len(whole.mean)), max(whole.mean)
        label = f"{found.label}: half-life {steps(whole.half_life)}"
        curves.plot(lags, np.array(whole.mean) / scale, color=colour(k), label=label)
        low, high = (np.array(band) / scale for band in (whole.low, whole.high))
        curves.fill_between(lags, low, high, color=colour(k), alpha=0.12, linewidth=0)
    for window in sorted({found.window for found in inspections}):
        if window < (furthest := inspections[0].flow.num_lags):
            side_of_line = "right" if 2 * window > furthest else "left"
            curves.axvline(window, color="grey", linestyle=":", linewidth=1)
            text = f" window of training {window} "
            curves.text(window, 1.3, text, color="grey", fontsize=8, ha=side_of_line)
    curves.set(
        yscale="log", ylim=(1e-6, 3), xlabel="lag k (steps back)",
        ylabel="‖∂L(t)/∂state(t-k)‖, largest = 1", title="How far back does it learn?",
    )  # fmt: skip
    curves.legend(fontsize=8, loc="lower left")
    _half_lives(side, inspections) if len(inspections) > 1 else _parts(side, inspections[0])
    return drawn


def _half_lives(axes: Any, inspections: list[Inspection]) -> None:
    beyond = _BEYOND * inspections[0].flow.num_lags
    values = [found.flow.whole.half_life for found in inspections]
    rows = range(len(values))
    axes.barh(rows, [min(v, beyond) for v in values], color=[colour(k) for k in rows])
    for row, value in enumerate(values):
        axes.text(min(value, beyond), row, f" {steps(value)}", va="center", fontsize=9)
    axes.set_yticks(rows, [found.label for found in inspections], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="steps", title="Half-life of the gradient")
    axes.margins(x=0.35)


def _parts(axes: Any, found: Inspection) -> None:
    styles = {"h": "--", "c": "-."}
    for name, flow in flows_by_part(found.flow).items():
        _, k, *part = name.split(".")
        style = styles.get(part[0], ":") if part else "-"
        seen = np.array(flow.mean)
        seen[seen == 0] = np.nan  # at lag 0 the loss does not see c
        label = f"{name}: {steps(flow.half_life)}"
        axes.plot(seen, color=colour(int(k)), linestyle=style, label=label)
    axes.set(yscale="log", xlabel="lag k", title="By layer and part: half-life in steps")
    top = max(max(flow.mean) for flow in flows_by_part(found.flow).values())
    axes.set_ylim(top * 1e-6, top * 3)
    axes.legend(fontsize=8)


def gates(inspections: list[Inspection]) -> Figure | None:
    """Histograms of gates, candidates and states, a row per layer; and how long units remember."""
    rows = [(found, k, layer) for found in inspections for k, layer in enumerate(found.activations)]
    widest = max(len(layer.gates) + len(layer.states) for _, _, layer in rows)
    drawn = figure(2.1 * (widest + 1), 1.9 * len(rows) + 0.4)
    grid = drawn.subplots(len(rows), widest + 1, squeeze=False)
    for axes_of_row, (found, k, layer) in zip(grid, rows, strict=True):
        for axes in axes_of_row:
            axes.set_yticks([])
            axes.tick_params(labelsize=7)
        parts = {**layer.gates, **layer.states}
        for axes, (name, values) in zip(axes_of_row, parts.items(), strict=False):
            edges = np.linspace(*values.edges, len(values.counts) + 1)
            axes.stairs(
                values.counts, edges, fill=True, color=colour(0 if name in layer.gates else 2)
            )
            ends = "" if values.low is None else f"\n{values.low:.0%} low, {values.high:.0%} high"
            axes.set_title(f"{name}{ends}", fontsize=8)
        for axes in axes_of_row[len(parts) : -1]:
            axes.set_axis_off()
        _memory(axes_of_row[-1], layer.half_lives)
        axes_of_row[0].set_ylabel(f"{found.label}\nlayer {k}", fontsize=7)
    return drawn


def _memory(axes: Any, half_lives: list[float] | None) -> None:
    if half_lives is None:
        axes.set_axis_off()
        return
    values = np.clip(half_lives, 0.1, 1e4)
    axes.hist(values, bins=np.geomspace(0.1, 1e4, 31).tolist(), color=colour(1))
    axes.set(xscale="log")
    axes.set_title(f"units' half-life, steps\nmedian {np.median(half_lives):.1f}", fontsize=8)


def matrices(inspections: list[Inspection]) -> Figure | None:
    """Singular values of the recurrent matrices, and eigenvalues in the complex plane."""
    rows = [
        (found, k, layer)
        for found in inspections
        for k, layer in enumerate(found.matrices)
        if layer
    ]
    if not rows:
        return None
    drawn = figure(8, 3.2 * len(rows))
    grid = drawn.subplots(len(rows), 2, squeeze=False)
    turn = np.linspace(0, 2 * np.pi, 200)
    for (singular, plane), (found, k, layer) in zip(grid, rows, strict=True):
        for n, spectrum in enumerate(layer):
            singular.plot(spectrum.singular_values, color=colour(n), label=spectrum.name)
            if spectrum.eigenvalues is not None:
                real, imaginary = zip(*spectrum.eigenvalues, strict=True)
                radius = f"{spectrum.name}: radius {spectrum.radius:.2f}"
                plane.plot(real, imaginary, ".", color=colour(n), markersize=3, label=radius)
        singular.axhline(1, color="grey", linestyle=":", linewidth=1)
        singular.set_title(f"{found.label}, layer {k}: singular values", fontsize=9)
        singular.legend(fontsize=7)
        plane.plot(np.cos(turn), np.sin(turn), color="grey", linestyle=":", linewidth=1)
        plane.set_title("eigenvalues; dotted: the unit circle", fontsize=9)
        plane.set_aspect("equal", "datalim")
        if plane.get_legend_handles_labels()[0]:
            plane.legend(fontsize=7)
    return drawn


def context(inspections: list[Inspection]) -> Figure | None:
    """What is lost when the state is reset every n tokens, and by position after a reset."""
    found = [(k, one) for k, one in enumerate(inspections) if one.context is not None]
    if not found:
        return None
    drawn = figure(10, 4)
    resets, positions = drawn.subplots(1, 2)
    for k, one in found:
        measured = one.context
        assert measured is not None
        perplexities = [exp(loss) for loss in measured.reset]
        resets.plot(measured.lengths, perplexities, "o-", color=colour(k), label=one.label)
        resets.axhline(exp(measured.carried), color=colour(k), linestyle=":")
        lost = np.array(measured.by_position)
        positions.plot(np.arange(1, len(lost) + 1), _smooth(lost), color=colour(k), label=one.label)
    resets.set(
        xscale="log", yscale="log", xlabel="state reset every n tokens", ylabel="perplexity",
        title="Effective context (dotted: state carried)",
    )  # fmt: skip
    resets.set_xscale("log", base=2)
    _plain_numbers(resets.xaxis, resets.yaxis)
    resets.tick_params(which="both", labelsize=8)
    resets.legend(fontsize=8)
    positions.axhline(0, color="grey", linewidth=1)
    positions.set(
        xscale="log", xlabel="tokens read since the reset", ylabel="nats lost per token",
        title="What the forgotten past is worth",
    )  # fmt: skip
    return drawn


def _plain_numbers(*log_axes: Any) -> None:
    """Write 20 rather than 2 x 10^1."""
    for axis in log_axes:
        axis.set_major_formatter("{x:g}")
        low, high = axis.get_view_interval()
        if high < _CROWDED * low:
            axis.set_minor_formatter("{x:g}")


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mean over a ninth of the way to either side: there are few targets at each position."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = place - place // 9, np.minimum(place + place // 9 + 1, len(values))
    smooth: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return smooth


def updates(inspections: list[Inspection]) -> Figure | None:
    """Update-to-weight ratios by parameter, and the gradient norms that clipping sees."""
    rows = [one for one in inspections if one.update_ratios is not None and one.clip is not None]
    if not rows:
        return None
    most = max(len(one.update_ratios or {}) for one in rows)
    drawn = figure(11, (1.2 + 0.22 * most) * len(rows))
    for (bars, norms), one in zip(drawn.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        ratios, clip = one.update_ratios or {}, one.clip
        assert clip is not None
        bars.barh(list(ratios), list(ratios.values()), color=colour(0))
        bars.axvline(USUAL, color="grey", linestyle=":")
        bars.set(xscale="log")
        bars.set_title(f"{one.label}: a step's update, relative to the weights", fontsize=9)
        bars.tick_params(labelsize=7)
        bars.invert_yaxis()
        _norms(norms, clip)
    return drawn


def _norms(axes: Any, clip: ClipAdvice) -> None:
    """The norms of training so far, and those of the rehearsed steps as dots at its end."""
    if clip.history:
        steps, means, largest = zip(*clip.history, strict=True)
        axes.plot(steps, means, color=colour(2), label="mean of a log interval")
        axes.plot(steps, largest, color=colour(2), linewidth=0.6, alpha=0.6, label="its largest")
    end = clip.history[-1][0] if clip.history else 0
    axes.plot([end] * len(clip.norms), clip.norms, ".", color=colour(6), label="rehearsed steps")
    if clip.threshold is not None:
        axes.axhline(clip.threshold, color=colour(1), label=f"threshold {clip.threshold:g}")
    suggested = f"suggested {clip.suggested:g}"
    axes.axhline(clip.suggested, color=colour(0), linestyle="--", label=suggested)
    axes.set(yscale="log", xlabel="step")
    _plain_numbers(axes.yaxis)
    axes.set_title("gradient norm in training, before clipping", fontsize=9)
    axes.legend(fontsize=7)


PICTURES: dict[str, Callable[[list[Inspection]], Figure | None]] = {
    "gradient_flow": gradient_flow,
    "gates": gates,
    "matrices": matrices,
    "context": context,
    "updates": updates,
}
"""File name → what draws it; None is nothing to draw."""
