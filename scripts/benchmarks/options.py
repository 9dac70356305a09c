"""What the command line says about all rows."""

from dataclasses import dataclass

import torch

from benchmarks.rows import TRAINING, TrainingRow
from benchmarks.timing import TORCH_DEFAULTS, Budget, Settings
from lm.runtime.compute import Compute, Kernels, Precision
from lm.runtime.device import RuntimeConfig, find_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where to measure and how much.

    Attributes:
        kernels: ours only; see `runtime.kernels`.
        smoke: tiny sizes, to see that everything runs.
    """

    device: str = "auto"
    kernels: str = "auto"
    threads: int | None = None
    steps: int = 30
    seconds: float = 40.0
    smoke: bool = False

    @property
    def budget(self) -> Budget:
        return Budget(self.steps, self.seconds)

    def row(self, name: str) -> TrainingRow:
        """The training row of that name, at the size asked for."""
        return TRAINING[name].tiny() if self.smoke else TRAINING[name]

    def use_threads(self) -> None:
        """For both sides, from now on."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def torch_device(self) -> torch.device:
        return find_device(self.device)

    def compute(self, precision: Precision = Precision.auto) -> tuple[Compute, Settings]:
        """How ours computes, and what it set in torch for that."""
        config = RuntimeConfig(
            device=self.device,
            threads=self.threads,
            precision=precision,
            kernels=Kernels[self.kernels],
        )
        with TORCH_DEFAULTS.applied():
            compute = config.build()
            plain = compute.kernels in (Kernels.torch, Kernels.reference)
            return compute, Settings.current(system_memory=plain)
