"""Writing tensors to a safetensors file as they come, some rows at a time.

The library wants all of a file's tensors in memory at once. Where a matrix is split over processes
no one of them has to have it whole, not even to save it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor whose rows come one part after the other.

    Attributes:
        own: what this process has of it.
        count: of the rows in all.
        parts: gives them all, anew with each call.
    """

    own: Tensor
    count: int
    parts: Callable[[], Iterator[Tensor]]


def write_tensors(tensors: Mapping[str, Tensor], rows: Mapping[str, Rows], path: Path) -> None:
    """Write a safetensors file.

    Args:
        tensors: by name; some may stand for their `rows` alone.
    """
    names, header, offset = ordered(tensors), {}, 0
    for name in names:
        shape, dtype = list(tensors[name].shape), tensors[name].dtype
        if name in rows:
            shape[0] = rows[name].count
        end = offset + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for part in rows[name].parts() if name in rows else [tensors[name]]:
                file.write(_bytes(part).data)


def take_part(tensors: Mapping[str, Tensor], rows: Mapping[str, Rows]) -> None:
    """Give another process the rows that it writes."""
    for name in ordered(tensors):
        if name in rows:
            for _ in rows[name].parts():
                pass


def ordered(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names in the order of the file: wide elements first, so that all lie where they may."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    flat = tensor.detach().cpu().contiguous().flatten()
    content: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return content
