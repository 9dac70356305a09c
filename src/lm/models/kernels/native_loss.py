"""The softmax loss with its products in C: `native/loss.h` says how, `native/gemm.h` multiplies.

With e_v = exp(z_v − z_own) and Z = Σ e_v, the loss is log Z and the gradients of Σ share · loss are

    d_x = (share / Z) (e W) − share W_own,    d_W = eᵀ (x share / Z) − (share x at the own words).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from lm.models.kernels import native
from lm.models.kernels.native_gemm import multiply

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None]

# A normaliser up to which share / Z, times a feature, stays far from underflow: 69 nats.
_LARGEST_TOTAL = 1e30
# As in loss.h and common.h.
_PANEL_GROUPS, _BLOCK_GROUPS = 4, 32


def can_run(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether there are compiled kernels for a weight like this and operands of this dtype."""
    real = torch.float64 if dtype == torch.float64 else torch.float32
    return weight.dtype == real and weight.is_contiguous() and native.can_run_on(weight, dtype)


def loss_and_gradients(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    share: Tensor,
    chunks: Iterable[slice],
) -> Gradients | None:
    """nll [N] and the gradients of Σ share · nll for features [N, F], weight [V, F] and bias [V].

    Args:
        x: its dtype is that of the operands of products; see `can_run`.
        chunks: rows to take at a time: their exponentials are held.

    Raises:
        IndexError: a target is no word.

    Returns:
        None where a normaliser leaves the range: a token is less probable than 1e-30.
    """
    native.check_words(targets, len(weight))
    x, targets, share = x.contiguous(), targets.contiguous(), share.contiguous()
    totals, d_x = share.new_empty(len(x)), weight.new_empty(x.shape)
    d_weight = torch.empty_like(weight)
    d_bias = None if bias is None else torch.empty_like(bias)
    buffer = None
    for rows in chunks:
        if buffer is None:
            buffer = x.new_empty(rows.stop - rows.start, len(weight))
        e = buffer[: rows.stop - rows.start]
        _exponentials(x[rows], weight, bias, targets[rows], e, totals[rows])
        if not float(totals[rows].amax()) < _LARGEST_TOTAL:
            return None
        factors = share[rows] / totals[rows]
        multiply(e, weight, d_x[rows])
        sums = {} if d_bias is None else {"factors": factors, "sums": d_bias}
        scaled = x[rows] * factors[:, None]
        multiply(e, scaled, d_weight, transposed=True, add=rows.start > 0, **sums)
        _own_words(x[rows], weight, targets[rows], share[rows], factors, d_x[rows], d_weight)
    if d_bias is not None:
        d_bias.scatter_add_(0, targets, -share)
    return totals.log(), d_x, d_weight, d_bias


def _own_words(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    share: Tensor,
    factors: Tensor,
    d_x: Tensor,
    d_weight: Tensor,
) -> None:
    """From the products with e to the gradients."""
    numbers = *x.shape, torch.get_num_threads()
    tensors = x, weight, targets, share, factors, d_x, d_weight
    native.call("own_words", x.dtype, numbers, tensors)


def _exponentials(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, e: Tensor, totals: Tensor
) -> None:
    """e [N, V] = exp(z − z_own) with z = x Wᵀ + b, and its sums over V."""
    (rows, inner), columns = x.shape, len(weight)
    lanes, threads = native.lanes(x.dtype), torch.get_num_threads()
    blocks = -(-columns // (lanes * _BLOCK_GROUPS))
    # With few blocks the rows are shared out as well.
    row_parts = min(rows, -(-2 * threads // blocks)) if threads > 1 else 1
    parts, shift = totals.new_empty(blocks, rows, lanes), torch.empty_like(totals)
    packed = x.new_empty(threads * _PANEL_GROUPS * lanes * (inner + inner % 2))
    numbers = rows, columns, inner, threads, row_parts
    bias = None if bias is None else bias.contiguous()
    tensors = x, weight, bias, targets, shift, e, totals, parts, packed
    native.call("exponentials", x.dtype, numbers, tensors)
