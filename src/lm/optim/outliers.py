"""Steps whose gradient is far larger than those before it: skipped instead of clipped.

A spike that clipping scales down still points where one bad window points. The comparison is with
the mean and standard deviation of the norms of the last steps (as OLMo 2 does: OLMo team 2025,
section 3.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm import checks
from lm.errors import CheckpointError
from lm.runtime.untrusted import REMEDY
from lm.runtime.untrusted_tensors import check_tensors

# How far one norm may move the statistic: enough that it grows by a few percent a step as long as
# all norms are outliers, however few standard deviations make one.
_REACH_SIGMAS = 3.0
_REACH_FACTOR = 1.1


@dataclass(kw_only=True, slots=True)
class OutlierConfig:
    """When a step is skipped.

    Attributes:
        sigmas: standard deviations above the mean from which a gradient norm is an outlier; None
            is off.
        history: steps that mean and deviation are of; none is skipped before as many are known.
    """

    sigmas: float | None = None
    history: int = 128

    def __post_init__(self) -> None:
        checks.positive("trainer.clip.outlier.sigmas", self.sigmas)
        checks.at_least("trainer.clip.outlier.history", self.history, 2)
        checks.at_most("trainer.clip.outlier.history", self.history, 1 << 20)
        if self.sigmas is None:
            checks.no_effect(
                "trainer.clip.outlier", self, ("history",),
                "sigmas=null skips nothing", "Set trainer.clip.outlier.sigmas",
            )  # fmt: skip


class Outliers:
    """The norms of the last steps, on the device, and what is far from them.

    Attributes:
        tensors: what the next decision depends on, by name: a ring of norms and how many went in;
            none where nothing is looked at.
    """

    def __init__(self, config: OutlierConfig, device: torch.device) -> None:
        self._config = config
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.tensors: dict[str, Tensor] = {}
        if config.sigmas is not None:
            self.tensors["norms"] = torch.zeros(config.history, dtype=exact, device=device)
            self.tensors["count"] = torch.zeros(1, dtype=torch.int64, device=device)

    def judge(self, norm: Float[Tensor, ""]) -> Bool[Tensor, ""] | None:
        """Whether the step is an outlier, and take note of its norm; None where nothing is looked
        at.

        An outlier is noted as no more than what is just within reach: one spike hides none of
        those that follow, and yet a lasting change of scale becomes the norm.
        """
        sigmas = self._config.sigmas
        if sigmas is None:
            return None
        norms, count = self.tensors["norms"], self.tensors["count"]
        known = count >= len(norms)
        mean, deviation = norms.mean(), norms.std()
        outlier = (known & (norm > mean + sigmas * deviation)).squeeze(0)
        reach = torch.maximum(mean + max(sigmas, _REACH_SIGMAS) * deviation, _REACH_FACTOR * mean)
        finite = norm.isfinite()
        norm = torch.where(known.squeeze(0), torch.minimum(norm, reach), norm)
        place = count % len(norms)
        kept = torch.where(finite, norm.to(norms.dtype), norms.gather(0, place).squeeze(0))
        norms.scatter_(0, place, kept[None])
        count += finite
        return outlier

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved tensors.

        Raises:
            CheckpointError: one is missing, none of ours or misshapen, or the count is none.
        """
        check_tensors(tensors, self.tensors, "outliers", any_width=True)
        if "count" in tensors and int(tensors["count"]) < 0:
            raise CheckpointError("the checkpoint's outliers/count is negative", REMEDY)
        for name, value in tensors.items():
            self.tensors[name].copy_(value)
