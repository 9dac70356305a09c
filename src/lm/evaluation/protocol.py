"""The evaluation protocol: every method tuned on validation text only, then measured once.

`tune` is given the validation text, `measure` the text that counts, after everything is tuned.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from lm.errors import ConfigError
from lm.evaluation.adaptation import DynamicConfig, Rule
from lm.evaluation.bootstrap import (
    Blocks,
    BootstrapConfig,
    Interval,
    Paired,
    blocks_of,
    interval,
    paired,
    standard_error,
)
from lm.evaluation.cache import Cache, CacheConfig
from lm.evaluation.dynamic import TUNE_TOKENS, Dynamic
from lm.evaluation.method import Method, Static
from lm.evaluation.temperature import Temperature
from lm.evaluation.text import Text
from lm.metrics.perplexity import Score
from lm.models import LanguageModel, RecurrentModel

log = logging.getLogger(__name__)


class Protocol(Enum):
    """What is evaluated; each but `static` beside it, so that its gain shows.

    static: the model as it is.
    temperature: its log-probabilities divided by a temperature.
    cache: with a neural cache.
    dynamic: while it goes on learning.
    dynamic_cache: a neural cache beside the learning model.
    all: all of them that the model has.
    """

    static = "static"
    temperature = "temperature"
    cache = "cache"
    dynamic = "dynamic"
    dynamic_cache = "dynamic_cache"
    all = "all"

    def has(self, *methods: "Protocol") -> bool:
        """Whether one of the methods is part of it."""
        return self is Protocol.all or self in methods


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the methods are built with.

    Attributes:
        train: gives the training text, if it is needed.
    """

    window: int
    num_streams: int
    temperature: float | None
    cache: CacheConfig
    dynamic: DynamicConfig
    train: Callable[[], Text]


def build_methods(model: LanguageModel, protocol: Protocol, settings: Settings) -> list[Method]:
    """The methods in the order of the table.

    Raises:
        ConfigError: the model has no features to compare, or no gradient to learn by.
    """
    window = settings.window
    methods: list[Method] = [Static(model, window=window, num_streams=settings.num_streams)]
    if protocol.has(Protocol.temperature):
        methods.append(Temperature(model, window=window, value=settings.temperature))
    if not protocol.has(Protocol.cache, Protocol.dynamic, Protocol.dynamic_cache):
        return methods
    if not isinstance(model, RecurrentModel):
        obstacle = f"need a recurrent network, and the model is a {type(model).__name__}"
        if protocol is not Protocol.all:
            raise ConfigError(
                f"cache and dynamic evaluation {obstacle}", "Set method=static or temperature."
            )
        log.info("cache and dynamic evaluation are left out: they %s", obstacle)
        return methods
    return methods + _recurrent_methods(model, protocol, settings)


def _recurrent_methods(
    model: RecurrentModel, protocol: Protocol, settings: Settings
) -> list[Method]:
    methods: list[Method] = []
    if protocol.has(Protocol.cache):
        methods.append(Cache(model, settings.cache, window=settings.window))
    if protocol.has(Protocol.dynamic, Protocol.dynamic_cache):
        train = settings.train() if settings.dynamic.rule is Rule.rms else None
        dynamic = Dynamic(model, settings.dynamic, train=train)
        methods.append(dynamic)
        if protocol.has(Protocol.dynamic_cache):
            both = Cache(
                model,
                settings.cache,
                window=settings.window,
                name="dynamic+cache",
                steps=dynamic.steps,
                tune_tokens=TUNE_TOKENS,
            )
            methods.append(both)
    return methods


def tune(methods: Sequence[Method], valid: Text) -> None:
    """Find every value that was not given; a method may build on those before it."""
    for method in methods:
        if method.needs_tuning:
            method.tune(valid)
            log.info("%s: %s, tuned on %s", method.name, listed(method.values), method.tuned_on)


@dataclass(frozen=True, slots=True)
class Row:
    """A method's line of the table.

    Attributes:
        interval: of the mean nats per token; None where there are too few blocks.
        excess_error: standard error of the mean excess over the text's source; None where that is
            unknown, or there are too few blocks.
        to_static: how it differs from the first line; None in that one.
        to_rival: how it differs from the same method of another model.
    """

    method: str
    score: Score
    values: dict[str, float]
    tuned_on: str | None
    interval: Interval | None
    excess_error: float | None = None
    to_static: Paired | None = None
    to_rival: Paired | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """What the methods give on a split."""

    split: str
    blocks: Blocks
    level: float
    rows: list[Row]


def measure(
    methods: Sequence[Method], text: Text, config: BootstrapConfig, rivals: Sequence[Method] = ()
) -> Table:
    """Evaluate the methods, the first of which is the static one, on a split.

    Args:
        rivals: of another model; each is compared with the method of its name.
    """
    names = {method.name for method in methods}
    others = {rival.name: rival for rival in rivals if rival.name in names}
    for method in reversed([*methods, *others.values()]):
        method.nats(text)  # what builds on another reads the text for both
    blocks = blocks_of(text)
    rows = []
    for method in methods:
        nats = method.nats(text)
        rival = others.get(method.name)
        excess = text.excess(nats)
        row = Row(
            method=method.name,
            score=method.score(text),
            values=method.values,
            tuned_on=method.tuned_on,
            interval=interval(nats, blocks, config),
            excess_error=None if excess is None else standard_error(excess, blocks),
            to_static=None
            if method is methods[0]
            else paired(nats, methods[0].nats(text), blocks, config),
            to_rival=None if rival is None else paired(nats, rival.nats(text), blocks, config),
        )
        rows.append(row)
    return Table(text.name, blocks, config.level, rows)


def listed(values: dict[str, float]) -> str:
    """Values for people: `lr 8e-05, decay 0.0005`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
