"""Fair timing: variants take turns in one process, each under its own settings."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce

import torch

from benchmarks.result import Result
from lm.runtime.memory import system_allocation

# Measurements of a variant that are taken whatever the time.
LEAST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What a variant does when its turn comes.

    Attributes:
        warm_up: steps before anything is measured.
        settling: steps at the start of a turn that are not counted: they find the caches and the
            allocator as another variant left them.
        counted: measurements in a turn.
        group: steps in a measurement; more than one lets a GPU work ahead as in training.
    """

    warm_up: int = 3
    settling: int = 1
    counted: int = 3
    group: int = 1


# For work that takes long enough to fill and empty every cache by itself.
WHOLE = Turns(warm_up=1, settling=0, counted=1)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to measure: `steps` measurements a variant, or what fits into `seconds` a row."""

    steps: int = 30
    seconds: float = 40.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per step of one variant."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


# Of torch.backends: where float32 products on the CPU go, and whether those on a GPU are TF32. By
# the same interface as `lm.runtime.compute` uses: torch refuses a mixture of its two for CUDA.
_PRODUCTS = ("mkldnn.matmul.fp32_precision", "cuda.matmul.allow_tf32", "cudnn.allow_tf32")


@dataclass(frozen=True, slots=True)
class Settings:
    """What torch does with float32 products, and how freed memory is treated.

    Ours may change both for the whole process; the textbook has to run as if it had not.
    """

    products: Mapping[str, object]
    system_memory: bool = True

    @classmethod
    def current(cls, *, system_memory: bool) -> "Settings":
        """As torch is set now."""
        return cls(
            {n: reduce(getattr, n.split("."), torch.backends) for n in _PRODUCTS}, system_memory
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run something under these settings."""
        for name, value in self.products.items():
            *owner, field = name.split(".")
            backend = reduce(getattr, owner, torch.backends)
            if getattr(backend, field) != value:
                setattr(backend, field, value)
        with system_allocation() if self.system_memory else nullcontext():
            yield


# Taken before anything of ours was built.
TORCH_DEFAULTS = Settings.current(system_memory=True)


@dataclass(frozen=True, slots=True)
class Variant:
    """Something to time; `run` does one step."""

    run: Callable[[], object]
    settings: Settings = TORCH_DEFAULTS


def interleave(
    variants: Mapping[str, Variant], budget: Budget, device: torch.device, turns: Turns
) -> dict[str, Timing]:
    """Let the variants take turns, in rotating order, until the budget is spent.

    All are warmed up first. At least `LEAST` steps of each are counted, whatever the time.
    """
    least = min(LEAST, budget.steps)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        with variant.settings.applied():
            _measure(variant, min(turns.warm_up, budget.steps), device)
    names = list(variants)
    begin = time.perf_counter()
    while (counted := len(seconds[names[0]])) < budget.steps:
        if counted >= least and time.perf_counter() - begin > budget.seconds:
            break
        for name in names:
            with variants[name].settings.applied():
                _measure(variants[name], turns.settling, device)
                for _ in range(min(turns.counted, budget.steps - counted)):
                    seconds[name].append(_measure(variants[name], turns.group, device))
        names = names[1:] + names[:1]
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _measure(variant: Variant, steps: int, device: torch.device) -> float:
    """Seconds of a step, as a mean over `steps`."""
    begin = time.perf_counter()
    for _ in range(steps):
        variant.run()
    synchronise(device)
    return (time.perf_counter() - begin) / max(steps, 1)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def compared(
    name: str, unit: str, timings: Mapping[str, Timing], amounts: tuple[float, float] | None = None
) -> Result:
    """The timings of `ours` and `textbook` as a result.

    Args:
        amounts: what each of the two gets done in a run, for a rate; None compares seconds.
    """
    ours, theirs = timings["ours"], timings["textbook"]
    values = (ours.median, theirs.median)
    if amounts is not None:
        values = (amounts[0] / ours.median, amounts[1] / theirs.median)
    details = {
        "ours_ms": ours.median * 1e3,
        "textbook_ms": theirs.median * 1e3,
        "ours_spread_ms": ours.spread * 1e3,
        "textbook_spread_ms": theirs.spread * 1e3,
        "measurements": len(ours.seconds),
    }
    return Result(name, *values, unit, details)
