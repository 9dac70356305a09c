"""Device, threads and cache folder: resolved once, said aloud, never changed silently."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from lm import checks
from lm.errors import ConfigError
from lm.runtime.choices import Choices
from lm.runtime.compute import Compute, Kernels, Precision, resolve_precision
from lm.runtime.files import default_cache
from lm.runtime.processes import ALONE, DEFAULT_TIMEOUT_SECONDS, Processes


@dataclass(kw_only=True, slots=True)
class RuntimeConfig:
    """Where and how a run computes.

    Attributes:
        device: `auto` (cuda, else mps, else cpu), `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: of the products in training: `auto` (bf16 where it is native), `fp32`, `bf16`.
            Weights, recurrent state and evaluation are float32 in any case.
        kernels: of the recurrent layers: `auto` (the fastest, measured once), `fast` (our own),
            `torch` (torch's own and nothing else tuned) or `reference` (the equations).
        threads: CPU threads; None leaves torch's choice.
        deterministic: ask torch for deterministic kernels everywhere.
        anomaly: let autograd name the operation that made a NaN; slow.
        profile: record a trace of the run for Perfetto or chrome://tracing; keep the run short.
        cache: folder for downloads and token files; None is $LM_CACHE or ~/.cache/lm, where
            compiled kernels are in any case.
        processes: that train together on this machine, each with its share of the streams and
            the cores, or with a GPU of its own; torchrun starts them on several machines.
        restarts: how often they are started again from the last checkpoint after one was lost.
        split_vocabulary: over several processes: each keeps its share of the words' vectors, in the
            embedding and the output layer, instead of all of them.
        timeout_seconds: how long one of several processes may keep the others waiting before it
            counts as lost.
    """

    group: ClassVar[str] = "runtime"

    device: str = "auto"
    precision: Precision = Precision.auto
    kernels: Kernels = Kernels.auto
    threads: int | None = None
    deterministic: bool = False
    anomaly: bool = False
    profile: bool = False
    cache: str | None = None
    processes: int = 1
    restarts: int = 0
    split_vocabulary: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        checks.at_least("runtime.processes", self.processes, 1)
        checks.at_most("runtime.processes", self.processes, 1 << 10)
        checks.at_least("runtime.restarts", self.restarts, 0)
        checks.positive("runtime.timeout_seconds", self.timeout_seconds)
        checks.at_least("runtime.threads", self.threads, 1)
        checks.at_most("runtime.threads", self.threads, 1 << 10)

    def build(self, processes: Processes = ALONE) -> Compute:
        """Apply threads and determinism, settle precision and products.

        Args:
            processes: that compute together, each on a device of its own where that is a GPU.

        Raises:
            ConfigError: the device is not there (lists those that are), or cannot serve what was
                asked for.
        """
        device = find_device(self.device, processes)
        precision, reason = resolve_precision(self.precision, device)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.deterministic != torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(self.deterministic)  # imports torch's compiler
        torch.autograd.set_detect_anomaly(self.anomaly)
        choices = Choices(self.cache_folder() / "measured.json", machine(device), processes)
        compute = Compute(device, precision, self.kernels, reason, choices)
        compute.use()
        return compute

    @contextmanager
    def profiled(self, trace: Path) -> Iterator[None]:
        """Record what runs inside into a Chrome trace, if `profile` is set."""
        if not self.profile:
            yield
            return
        with torch.profiler.profile() as profiler:
            yield
        profiler.export_chrome_trace(str(trace))

    def cache_folder(self) -> Path:
        """The cache folder, not created yet."""
        return Path(self.cache).expanduser() if self.cache else default_cache()


def available_devices() -> list[str]:
    """What `runtime.device` may be here, the best first."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def find_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The named device, or the best one for `auto`; of several GPUs each process has its own."""
    found = available_devices()
    if name == "auto":
        name = "cuda" if found[0].startswith("cuda") else found[0]
    wanted = f"cuda:{processes.local_rank}" if name == "cuda" else name
    if wanted not in found:
        raise ConfigError(
            f"runtime.device={name} is not available here"
            f"{'' if processes.alone else f' as {wanted}'}; available: {', '.join(found)}",
            f"Set runtime.device={found[0]} or runtime.device=auto."
            if processes.alone
            else "Start as many processes on a machine as it has GPUs, or set runtime.device=cpu.",
        )
    if not processes.alone and wanted.startswith("cuda") and name != "cuda":
        raise ConfigError(
            f"runtime.device={name} is one GPU, but there are {processes.size} processes",
            "Set runtime.device=cuda, which gives each process its own.",
        )
    return torch.device(wanted)


def machine(device: torch.device) -> dict[str, str | int]:
    """What the last bit of a result depends on; compared when a run is resumed."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "torch": str(torch.__version__),
        "device": device.type,
        "device_name": name,
        "cpu_features": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """The CPU's model, as far as torch can tell; else its architecture."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12 or so
        return platform.machine()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())
