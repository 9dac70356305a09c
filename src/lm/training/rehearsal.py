"""The next steps of a run, taken in memory and thrown away: what training would do from here."""

import math
from dataclasses import dataclass

from lm.inspection.updates import UpdateRatios
from lm.training.run import Run


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the steps were like.

    Attributes:
        lr: learning rate that they were taken with.
        gradient_norms: before clipping, of each step; what was not finite is left out.
        update_ratios: by parameter, the mean over the steps of how far one moved it, relative to
            its size.
    """

    lr: float
    gradient_norms: list[float]
    update_ratios: dict[str, float]


def rehearse(run: Run, steps: int) -> Rehearsal:
    """Go on from where the run stands, at the learning rate of its last step.

    The schedule stands still, so that of a finished run too there are steps to look at. The run's
    weights, optimiser and position move on in memory; nothing is written.
    """
    progress = run.progress
    multiplier = run.schedule.multiplier(max(progress.step - 1, 0))
    parameters = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    norms: list[float] = []
    moved = dict.fromkeys(parameters, 0.0)
    run.statistics.read()  # what the run itself had not logged yet
    for _ in range(steps):
        window = run.streams.window(progress.position, run.windows.length(progress.step))
        ratios = UpdateRatios(parameters)
        run.state = run.train_step(
            window,
            run.state,
            step=progress.step,
            lr_multiplier=multiplier * run.windows.lr_factor(len(window.tokens)),
        )
        norms.append(run.statistics.read().gradient_norm)
        for name, ratio in ratios.read().items():
            moved[name] += ratio / steps
        progress.advance(window, run.streams)
        if progress.position == 0:
            run.state = None
    return Rehearsal(run.optimizers.lr, [norm for norm in norms if math.isfinite(norm)], moved)
