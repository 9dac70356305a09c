"""Which kernels can run a layer with the weights at hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lm.models.kernels import triton_cells
from lm.models.kernels.native import can_run_on
from lm.models.kernels.products import can_pack, packed_product, plain_product
from lm.runtime.compute import cpu_has_bf16

# (x, state, weights) → (y, state): `lm.models.base.Sequence`.
Way = Callable[..., Any]


def ways_over_a_window(
    recurrent: Tensor, *, fused: Way, torch_own: Way | None, native: Way, triton: Way
) -> dict[str, Way]:
    """The kernels for this recurrent matrix by name, torch's own first.

    Args:
        fused: our autograd function; takes a way to multiply with the matrix first.
        torch_own: None where torch has none.
        native: our loop in C, for the CPU.
        triton: for CUDA.
    """
    ways: dict[str, Way] = {}
    if torch_own is not None and _torch_runs(recurrent):
        ways["torch"] = torch_own
    if can_run_on(recurrent):
        ways["native"] = native
    if can_pack(recurrent):
        ways["packed"] = partial(fused, packed_product)
    single = recurrent.dtype in (torch.float32, torch.bfloat16)
    if recurrent.is_cuda and single and triton_cells.available():
        ways["triton"] = triton
    return {**ways, "plain": partial(fused, plain_product)}


def _torch_runs(like: Tensor) -> bool:
    """Whether torch's own kernels run in this dtype: on a CPU without native bf16 they fail."""
    return like.dtype != torch.bfloat16 or like.device.type != "cpu" or cpu_has_bf16()
