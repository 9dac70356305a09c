"""What a measurement was taken on."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch


def machine(device: torch.device) -> dict[str, str]:
    """For people, by heading; equal on equal machines with equal software."""
    described = {"device": device.type}
    if device.type == "cuda":
        described["GPU"] = torch.cuda.get_device_name(device)
    return {
        **described,
        "CPU": cpu_model(),
        "cores": str(_usable_cores()),
        "threads": str(torch.get_num_threads()),
        "capability": ", ".join(_capabilities(device)),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """As the system calls it."""
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _capabilities(device: torch.device) -> Iterator[str]:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        yield f"compute {major}.{minor}"
        yield f"CUDA {torch.version.cuda}"
    yield torch.backends.cpu.get_cpu_capability()
    native = []
    for name, asked in (
        ("avx512_bf16", "_is_avx512_bf16_supported"),
        ("amx_bf16", "_is_amx_tile_supported"),
    ):
        if getattr(torch.cpu, asked, lambda: False)():
            native.append(name)
    yield from native or ["no native bf16 on the CPU"]
