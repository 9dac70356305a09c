"""The root schema of `lm evaluate`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from lm import checks
from lm.data.corpus import SPLITS, DataConfig, Unit
from lm.errors import ConfigError
from lm.evaluation.adaptation import DynamicConfig
from lm.evaluation.bootstrap import BootstrapConfig
from lm.evaluation.cache import CacheConfig
from lm.evaluation.protocol import Protocol
from lm.runtime.device import RuntimeConfig


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """`lm evaluate`.

    Attributes:
        run: a run directory, a folder of runs such as `runs/<name>`, of which the newest is taken,
            or a checkpoint.
        checkpoint: which one of the run: `best`, `last` or a name such as `step-000001000`.
        splits: what to evaluate on.
        method: how; what is not given of it is tuned on the validation split.
        streams: 1 is exact; more start each stream without its predecessor's state.
        window: tokens per chunk; changes speed and memory, not the number.
        temperature: of that method; None is tuned.
        cache, dynamic: of those methods.
        tune_tokens: tune on the first so many tokens of the validation split; None is all of it,
            and the first 20,000 for dynamic evaluation, each of whose trials is a training run.
        bootstrap: intervals and tests.
        against: another run with the same vocabulary, to compare with on the same tokens.
        interpolate: runs with the same vocabulary whose probabilities are mixed in.
        audit: check the model first; if a check fails there are no numbers.
        data: another corpus than the one that the run was trained on.
        unit: where the state is reset; None is as in training, or what `data.unit` says.
        changed_data: evaluate although the run's own data is not what it was trained with.
        output: a file to write the numbers to, as JSON.
    """

    run: str = MISSING
    checkpoint: str = "best"
    splits: list[str] = field(default_factory=lambda: ["test"])
    method: Protocol = Protocol.static
    streams: int = 1
    window: int = 1024
    temperature: float | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    dynamic: DynamicConfig = field(default_factory=DynamicConfig)
    tune_tokens: int | None = None
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    against: str | None = None
    interpolate: list[str] | None = None
    audit: bool = False
    data: DataConfig | None = None
    unit: Unit | None = None
    changed_data: bool = False
    output: str | None = None
    runtime: RuntimeConfig = MISSING

    def __post_init__(self) -> None:
        checks.at_least("len(splits)", len(self.splits), 1)
        for split in self.splits:
            checks.one_of("splits", split, SPLITS)
        for name in ("streams", "window"):
            checks.at_least(name, getattr(self, name), 1)
            checks.at_most(name, getattr(self, name), checks.MOST_HELD)
        checks.positive("temperature", self.temperature)
        checks.at_least("tune_tokens", self.tune_tokens, 1)
        if self.interpolate is not None:
            checks.at_least("len(interpolate)", len(self.interpolate), 1)
        self._check_combination()

    def _check_combination(self) -> None:
        tuned = self.method is not Protocol.static or self.interpolate is not None
        settings = {
            "temperature": (self.temperature is not None, [Protocol.temperature]),
            "cache.*": (self.cache != CacheConfig(), [Protocol.cache, Protocol.dynamic_cache]),
            "dynamic.*": (
                self.dynamic != DynamicConfig(), [Protocol.dynamic, Protocol.dynamic_cache]
            ),
        }  # fmt: skip
        for name, (given, methods) in settings.items():
            if given and not self.method.has(*methods):
                raise ConfigError(
                    f"{name} has no effect with method={self.method.name}",
                    f"Set method={methods[0].name} or method=all.",
                )
        if self.streams > 1 and tuned:
            raise ConfigError(
                f"streams={self.streams} is an approximation, which method={self.method.name}"
                f"{' with interpolate' if self.interpolate else ''} does not make",
                "Set streams=1.",
            )
        if self.tune_tokens is not None and not tuned:
            raise ConfigError(
                f"tune_tokens={self.tune_tokens}, but method=static has nothing to tune",
                "Set method=all, or interpolate=<run>.",
            )
