"""What training adds to the objective beside the loss; what is reported stays the loss alone."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lm import checks


@dataclass(kw_only=True, slots=True)
class PenaltyConfig:
    """Penalties on the last layer (Merity, McCann & Socher 2017; Merity et al. 2018, section 4.7).

    Attributes:
        activation: α of α · mean(h̃²), h̃ the output after dropout (AR).
        temporal: β of β · mean((h_t − h_{t−1})²), h the output before dropout (TAR).
        label_smoothing: ε: the target is (1 − ε) · one-hot + ε · uniform (Szegedy et al. 2016,
            section 7).
    """

    activation: float = 0.0
    temporal: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.non_negative("model.penalty.activation", self.activation)
        checks.non_negative("model.penalty.temporal", self.temporal)
        checks.fraction("model.penalty.label_smoothing", self.label_smoothing)

    def on_output(
        self, raw: Float[Tensor, "T B F"], dropped: Float[Tensor, "T B F"]
    ) -> Float[Tensor, ""] | None:
        """AR and TAR of a window's last layer; None where both are off.

        Args:
            raw: its output; within a window, so that the first step has no predecessor.
            dropped: the same after dropout.
        """
        total = None
        if self.activation:
            total = self.activation * dropped.float().square().mean()
        if self.temporal and len(raw) > 1:
            change = self.temporal * (raw[1:] - raw[:-1]).float().square().mean()
            total = change if total is None else total + change
        return total
