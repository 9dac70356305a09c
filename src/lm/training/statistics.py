"""Running sums of training, kept on the device and read every `log_every` steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.errors import CheckpointError
from lm.runtime.processes import Processes
from lm.runtime.untrusted import REMEDY
from lm.runtime.untrusted_tensors import check_tensors

_FIELDS = (
    *("nats", "tokens", "norm", "largest_norm", "clipped", "good"),
    *("skipped", "bad_run", "worst_run"),
)
_SUMS_OF_REALS = ("nats", "norm")


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened since the last log point, on the host.

    Attributes:
        loss: mean nats per token over the steps that counted; NaN when all were skipped.
        gradient_norm: mean pre-clip norm.
        largest_norm: largest pre-clip norm, of outlying steps too.
        clip_fraction: share of steps that were clipped.
        skipped: skipped steps since the start of the run.
        worst_run: most non-finite steps in a row since the last log point.
    """

    loss: float
    gradient_norm: float
    largest_norm: float
    clip_fraction: float
    skipped: int
    worst_run: int


class Statistics:
    """The sums: 0-dim tensors by name, saved with the checkpoint so that logs resume exactly."""

    def __init__(self, device: torch.device) -> None:
        self.sums: dict[str, Tensor] = {}
        exact = torch.float32 if device.type == "mps" else torch.float64
        for name in _FIELDS:
            self.sums[name] = torch.zeros((), dtype=exact, device=device)

    def add(
        self,
        *,
        nats: Tensor,
        tokens: int,
        norm: Tensor,
        clipped: Tensor,
        skip: Tensor,
        bad: Tensor,
    ) -> None:
        """Count a step without reading the device; a skipped step's NaN enters nothing.

        Args:
            bad: skipped because it was not finite; that many in a row end a run.
        """
        sums = self.sums
        good = ~skip
        zero = torch.zeros_like(sums["nats"])
        sums["nats"] += torch.where(skip, zero, nats)
        sums["norm"] += torch.where(skip, zero, norm)
        finite = torch.where(bad, zero, norm)
        torch.maximum(sums["largest_norm"], finite, out=sums["largest_norm"])
        sums["clipped"] += clipped & good
        sums["tokens"] += good * tokens
        sums["good"] += good
        sums["skipped"] += skip
        sums["bad_run"].add_(1).mul_(bad)
        torch.maximum(sums["worst_run"], sums["bad_run"], out=sums["worst_run"])

    def average(self, processes: Processes) -> None:
        """Sums as the mean over processes that counted by themselves: what is read are ratios."""
        extremes = {"largest_norm", "skipped", "bad_run", "worst_run"}
        means = [name for name in _FIELDS if name not in extremes]
        row = torch.stack([self.sums[name] for name in means]) / processes.size
        processes.add_up(row)
        highest = processes.largest([float(self.sums[name]) for name in sorted(extremes)])
        for name, value in zip([*means, *sorted(extremes)], [*row.tolist(), *highest], strict=True):
            self.sums[name].fill_(value)

    def read(self) -> Interval:
        """One transfer to the host; starts the next interval."""
        values = dict(zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True))
        good = values["good"]
        for name in ("nats", "tokens", "norm", "largest_norm", "clipped", "good"):
            self.sums[name].zero_()
        self.sums["worst_run"].copy_(self.sums["bad_run"])
        nothing = float("nan")
        return Interval(
            loss=values["nats"] / values["tokens"] if values["tokens"] else nothing,
            gradient_norm=values["norm"] / good if good else nothing,
            largest_norm=values["largest_norm"] if good else nothing,
            clip_fraction=values["clipped"] / good if good else nothing,
            skipped=int(values["skipped"]),
            worst_run=int(values["worst_run"]),
        )

    def load(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from saved sums.

        Raises:
            CheckpointError: one is missing or none of ours, or what counts is no count.
        """
        check_tensors(sums, self.sums, "statistics", any_width=True)
        for name, value in sums.items():
            if name not in _SUMS_OF_REALS and not (value.isfinite() and value >= 0):
                raise CheckpointError(f"the checkpoint's statistics/{name} is no count", REMEDY)
        for name, value in sums.items():
            self.sums[name].copy_(value)
