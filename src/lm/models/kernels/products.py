"""The products of a window: for all steps at once, except the recurrent one."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

# (h [B, K], addend [B, M] | None) → addend + h Wᵀ, the same W [M, K] at every step.
Product = Callable[[Tensor, Tensor | None], Tensor]
# (W, B) → the product.
Prepare = Callable[[Tensor, int], Product]


def plain_product(weight: Tensor, num_streams: int) -> Product:
    """Through torch's `addmm`: any device, any dtype."""
    transposed = weight.T

    def product(h: Tensor, addend: Tensor | None) -> Tensor:
        return h @ transposed if addend is None else torch.addmm(addend, h, transposed)

    return product


def packed_product(weight: Tensor, num_streams: int) -> Product:
    """Through oneDNN, with the matrix rearranged into its layout once; see `can_pack`.

    For so few rows as there are streams, a library spends about as long on rearranging the matrix
    as on multiplying. With 20 streams and H = 650 in float32, two cores of an AMD Zen 3 do 115
    GFLOP/s this way and 55 to 70 otherwise.
    """
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), num_streams)
    plain, linear = torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._linear_pointwise.binary

    def product(h: Tensor, addend: Tensor | None) -> Tensor:
        result: Tensor = (
            plain(h, packed, None, "none", [], "")
            if addend is None
            else linear(h, addend, packed, None, "add")
        )
        return result

    return product


def can_pack(like: Tensor) -> bool:
    """Whether this torch and this CPU rearrange matrices of this dtype."""
    return like.device.type == "cpu" and _packs(like.dtype)


@cache
def _packs(dtype: torch.dtype) -> bool:
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    ones = torch.ones(16, 16, dtype=dtype)
    try:
        result = packed_product(ones, 16)(ones, ones)
    except (AttributeError, RuntimeError):
        return False
    return bool((result == 17).all())


def input_products(x: Tensor, weight_ih: Tensor, bias: Tensor | None) -> Tensor:
    """W_ih x_t + b for all steps: [T, B, G·H]."""
    flat = x.flatten(0, 1)
    if bias is None:
        product = flat @ weight_ih.T
    else:
        product = torch.addmm(bias.to(x.dtype), flat, weight_ih.T)
    return product.view(*x.shape[:2], -1)


def input_gradient(ctx: Any, d_gates: Tensor, weight_ih: Tensor) -> Tensor | None:
    """∂L/∂x from the gradient of the pre-activations, where x needs one."""
    if not ctx.needs_input_grad[0]:
        return None
    return (d_gates.flatten(0, 1) @ weight_ih).view(*d_gates.shape[:2], -1)


def weight_gradient(d_gates: Tensor, operand: Tensor) -> Tensor:
    """∂L/∂W of W · operand_t, summed over steps and streams in one product."""
    return d_gates.flatten(0, 1).T @ operand.flatten(0, 1)


def zeros_or(gradient: Tensor | None, like: Tensor) -> Tensor:
    """The gradient as a plain block; one that did not arrive is zero."""
    return torch.zeros_like(like) if gradient is None else gradient.contiguous()
