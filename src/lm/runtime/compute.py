"""How a run computes: where, with which products, with which kernels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, partial
from typing import Any

import torch

from lm.errors import CheckpointError, ConfigError
from lm.runtime.choices import Choices
from lm.runtime.memory import keep_freed_memory
from lm.runtime.untrusted import REMEDY, as_texts, shown

# Relative error that a product in float32 may have, of the largest element: real bf16 has 3e-3.
_FP32_ERROR = 1e-5


class Precision(Enum):
    """Of the products in training; weights, recurrent state and loss are float32 in any case."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Kernels(Enum):
    """Who computes a recurrent layer.

    auto: the fastest here, measured once for each shape.
    fast: the fastest of our own.
    torch: torch's own (nn.LSTM's and so on), as a textbook loop uses them.
    reference: the equations, step by step.
    """

    auto = "auto"
    fast = "fast"
    torch = "torch"
    reference = "reference"


@dataclass(slots=True)
class Compute:
    """A device, and how to use it.

    Attributes:
        precision: of the products in training, resolved; evaluation is always fp32.
        reason: why this precision.
        choices: what was measured to be fastest here.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = Precision.fp32
    kernels: Kernels = Kernels.torch
    reason: str = "not asked for another"
    choices: Choices = field(default_factory=Choices)

    @property
    def dtype(self) -> torch.dtype:
        """Of the operands of products in training."""
        return torch.bfloat16 if self.precision is Precision.bf16 else torch.float32

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run computes the same way."""
        return {"precision": self.precision.value, "choices": self.choices.taken_by_all()}

    def resume(self, saved: Mapping[str, Any], *, keep_precision: bool) -> None:
        """Take over what was picked and measured when the run began.

        Args:
            saved: of the checkpoint.
            keep_precision: the run's precision was picked, not asked for.

        Raises:
            CheckpointError: it is not what `to_json` gives.
        """
        precision = saved.get("precision")
        if precision not in (Precision.fp32.value, Precision.bf16.value):
            raise CheckpointError(
                f"the checkpoint's state.compute.precision is {shown(precision)}", REMEDY
            )
        self.choices.taken.update(as_texts(saved.get("choices"), "state.compute.choices"))
        before = Precision(precision)
        if keep_precision and (before is Precision.fp32 or _obstacle_to_bf16(self.device) is None):
            self.precision, self.reason = before, "as the run began"
        self.use()

    def use(self) -> None:
        """Set what torch keeps for the whole process."""
        if self.kernels in (Kernels.auto, Kernels.fast):
            choose_fp32_products(self.choices)
            keep_freed_memory()
        else:
            use_fp32_products("mkl")


def resolve_precision(wanted: Precision, device: torch.device) -> tuple[Precision, str]:
    """What `wanted` means on this device, and why.

    Raises:
        ConfigError: bf16 was asked for and the device would have to emulate it.
    """
    obstacle = _obstacle_to_bf16(device)
    if wanted is Precision.fp32:
        return wanted, "as asked"
    if obstacle is None:
        return Precision.bf16, "as asked" if wanted is Precision.bf16 else "native here"
    if wanted is Precision.bf16:
        raise ConfigError(
            f"runtime.precision=bf16 cannot be served: {obstacle}",
            "Set runtime.precision=fp32, or auto for what the device is good at.",
        )
    return Precision.fp32, obstacle


def _obstacle_to_bf16(device: torch.device) -> str | None:
    """Why products in bf16 would be slow or impossible; None where they are native."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 8 else f"compute capability {major}.{minor} has no bf16"
    if device.type == "mps":
        return "bf16 is not tested on mps"
    return None if cpu_has_bf16() else "this CPU has no native bf16 (avx512_bf16 or amx_bf16)"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        asked = getattr(torch.cpu, name, None)
        if asked is not None and asked():
            return True
    return False


def use_fp32_products(backend: str) -> None:
    """Send float32 products on the CPU through `mkl` (torch's default) or `onednn`.

    torch reaches oneDNN for float32 only where bf16 inside is allowed; see `choose_fp32_products`.
    """
    mkldnn: Any = torch.backends.mkldnn
    if hasattr(mkldnn, "matmul"):
        mkldnn.matmul.fp32_precision = "bf16" if backend == "onednn" else "none"


def choose_fp32_products(choices: Choices) -> None:
    """Use the faster of MKL and oneDNN (2.2 times as fast on an AMD Zen 5).

    Where the CPU would really take the permission and use bf16, the error shows, and MKL stays.
    """
    accurate = ["mkl", "onednn"] if _error_of_onednn() < _FP32_ERROR else ["mkl"]
    candidates = {name: partial(_product, name) for name in accurate}
    use_fp32_products(choices.fastest("fp32 products", candidates))


def _product(backend: str) -> torch.Tensor:
    use_fp32_products(backend)
    a, b = _factors()
    return a @ b.T


@cache
def _factors() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(384, 640, generator=draws), torch.randn(2048, 640, generator=draws)


@cache
def _error_of_onednn() -> float:
    """The relative error of a float32 product that may go through oneDNN."""
    a, b = _factors()
    exact = a.double() @ b.T.double()
    return float((_product("onednn") - exact).abs().amax() / exact.abs().amax())


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products in float32: no autocast, no TF32, whatever training used."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
