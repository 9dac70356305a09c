"""Tensors that a stranger may have saved; apart, since whoever reads no tensor needs no torch."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lm.errors import CheckpointError
from lm.runtime.untrusted import REMEDY, check_names, contained, shown

# In bytes: a tensor has some 100 there, and takes a kilobyte in memory even without elements.
_MAX_HEADER = 4 << 20


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        CheckpointError: it is none, or its header alone would fill the memory.
    """
    with contained(path):
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > _MAX_HEADER:
            raise CheckpointError(f"{path} has a header of {header:,} bytes", REMEDY)
        tensors: dict[str, Tensor] = load_file(path)
        return tensors


def check_tensors(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    what: str,
    *,
    any_width: bool = False,
) -> None:
    """Compare saved tensors with those whose places they take, in names, shapes and types.

    Args:
        any_width: floating-point numbers may be wider or narrower, as another device has them.

    Raises:
        CheckpointError: naming the first that differs.
    """
    check_names(set(found), set(own), what)
    for name, tensor in own.items():
        value = found[name]
        alike = value.dtype == tensor.dtype
        if any_width and tensor.is_floating_point():
            alike = value.dtype in (torch.float32, torch.float64)
        if value.shape != tensor.shape or not alike:
            raise CheckpointError(
                f"the checkpoint's {what}/{name} is {value.dtype} {shown(list(value.shape))}, "
                f"the run needs {tensor.dtype} {shown(list(tensor.shape))}",
                REMEDY,
            )
