"""Trials without training: processes that write what a run would, as fast as they are asked."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage

from lm.sweeping.conductor import Conductor
from lm.sweeping.methods import Pruner, Sampler
from lm.sweeping.process import Order
from lm.sweeping.space import Parameter, Value
from lm.sweeping.study import Study

TAG = "valid/loss"
SPACE = {
    "optim.lr": Parameter(low=0.001, high=1.0, log=True),
    "model": Parameter(choices=["a", "b"]),
}
DEFAULT: dict[str, Value] = {"optim.lr": 0.5, "model": "b"}


def loss(params: Mapping[str, Value]) -> float:
    """Best at a rate of 0.03 and with `a`."""
    rate = params.get("optim.lr", 1.0)
    assert isinstance(rate, float)
    return 2.0 + math.log10(rate / 0.03) ** 2 + (params.get("model") != "a")


@dataclass
class Fake:
    """A run that validates once whenever it is looked at.

    Attributes:
        slowness: how often it has to be looked at instead.
        ends: exit code after its last validation.
    """

    order: Order
    params: Mapping[str, Value]
    validations: int = 3
    slowness: int = 1
    looks: int = 0
    ends: int = 0
    code: int | None = None
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order.directory.mkdir(exist_ok=True)
        self._path = self.order.directory / "metrics.jsonl"
        self._step = len(self._path.read_text().splitlines()) if self._path.exists() else 0

    def poll(self) -> int | None:
        if self.code is None and self._step == self.validations:
            self.code = self.ends
            if self.code == 0:
                self._summarise("done")
            return self.code
        self.looks += 1
        if self.code is None and self.looks % self.slowness == 0:
            self._step += 1
            value = loss(self.params) + 1 / self._step
            with self._path.open("a") as file:
                file.write(json.dumps({"step": self._step, TAG: value}) + "\n")
            (self.order.directory / f"checkpoints/step-{self._step}").mkdir(parents=True)
        return self.code

    def stop(self) -> None:
        self.events.append("stop")
        if self.code is None:
            self.code = 75
            self._summarise("stopped")

    def kill(self) -> None:
        self.events.append("kill")
        self.code = -9

    def complaint(self) -> str:
        return f"no luck in {self.order.directory.name}"

    def _summarise(self, status: str) -> None:
        content = {"status": status, "seconds": float(self._step)}
        (self.order.directory / "summary.json").write_text(json.dumps(content))


@dataclass
class Bench:
    """A folder in which one sweep is conducted, again and again if need be.

    Attributes:
        storage: in memory, which is fast; a database has the same contents.
        made: every process that was started, in turn.
        most: how many ran side by side.
        shape: changes a process before it starts.
    """

    folder: Path
    sampler: Sampler = Sampler.tpe
    storage: str | BaseStorage = field(default_factory=InMemoryStorage)
    pruner: Pruner | None = None
    space: dict[str, Parameter] = field(default_factory=lambda: dict(SPACE))
    default: Mapping[str, Value] = field(default_factory=lambda: dict(DEFAULT))
    shape: Callable[[Fake], None] = lambda fake: None
    made: list[Fake] = field(default_factory=list)
    most: int = 0

    def study(self, owner: str = "us") -> Study:
        return Study(
            "bench",
            self.storage,
            self.space,
            sampler=self.sampler,
            pruner=self.pruner,
            seed=3,
            owner=owner,
        )

    def conductor(self, trials: int, workers: int = 1, owner: str = "us") -> Conductor:
        chosen: dict[str, Mapping[str, Value]] = {}

        def overrides_of(params: Mapping[str, Value], resumed: Path | None) -> list[str]:
            chosen["params"] = params
            return [f"{params}", *([] if resumed is None else [f"resume={resumed.name}"])]

        def start(order: Order) -> Fake:
            fake = Fake(order, chosen["params"])
            self.shape(fake)
            self.made.append(fake)
            self.most = max(self.most, sum(each.code is None for each in self.made))
            return fake

        return Conductor(
            study=self.study(owner),
            folder=self.folder,
            start=start,
            overrides_of=overrides_of,
            names=list(self.space),
            default=self.default,
            tag=TAG,
            trials=trials,
            workers=workers,
        )
