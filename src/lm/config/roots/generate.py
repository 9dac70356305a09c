"""The root schema of `lm generate`."""

from dataclasses import dataclass

from omegaconf import MISSING

from lm import checks
from lm.errors import ConfigError
from lm.runtime.device import RuntimeConfig
from lm.sampling import SamplingConfig


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """`lm generate`.

    Attributes:
        run: a run directory, a folder of runs such as `runs/<name>`, of which the newest is taken,
            or a checkpoint.
        checkpoint: which one of the run: `best`, `last` or a name such as `step-000001000`.
        prompt: the text to go on from; taken to the letter. None begins after a line end.
        interactive: a dialogue in which the model goes on from all that was said; None is one on a
            terminal, where there is no prompt and one sample.
        num_tokens: tokens per sample, at most.
        num_samples: samples, drawn at once.
        temperature, top_k, top_p: as in `SamplingConfig`.
        seed: of the draws.
        stop: end a sample before this text; taken to the letter.
    """

    run: str = MISSING
    checkpoint: str = "best"
    prompt: str | None = None
    interactive: bool | None = None
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
        if self.interactive and self.num_samples > 1:
            raise ConfigError(
                f"interactive=true draws one sample, got num_samples={self.num_samples}",
                "Set num_samples=1, or interactive=false.",
            )

    def is_dialogue(self, *, on_terminal: bool) -> bool:
        """Whether the user is asked for text."""
        if self.interactive is not None:
            return self.interactive
        return on_terminal and self.prompt is None and self.num_samples == 1

    def sampling(self) -> SamplingConfig:
        """How each token is drawn; checks the ranges."""
        return SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
