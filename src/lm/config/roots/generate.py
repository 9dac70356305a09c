"""The root schema of `lm generate`."""

from dataclasses import dataclass

from omegaconf import MISSING

from lm import checks
from lm.runtime.device import RuntimeConfig
from lm.sampling import SamplingConfig


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """`lm generate`.

    Attributes:
        run: a run directory, a folder of runs such as `runs/<name>`, of which the newest is taken,
            or a checkpoint.
        checkpoint: which one of the run: `best`, `last` or a name such as `step-000001000`.
        prompt: the text to go on from; taken to the letter.
        num_tokens: tokens per sample, at most.
        num_samples: samples, drawn at once.
        temperature, top_k, top_p: as in `SamplingConfig`.
        seed: of the draws.
        stop: end a sample before this text; taken to the letter.
    """

    run: str = MISSING
    checkpoint: str = "best"
    prompt: str = ""
    num_tokens: int = 200
    num_samples: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 1
    stop: str | None = None
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        for name in ("num_tokens", "num_samples"):
            checks.at_least(name, getattr(self, name), 1)
            checks.at_most(name, getattr(self, name), checks.MOST_HELD)
        checks.at_least("seed", self.seed, 0)
        self.sampling()

    def sampling(self) -> SamplingConfig:
        """How each token is drawn; checks the ranges."""
        return SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
