"""The softmax loss and its gradient without the whole [N, V] logits.

A training step asks for the mean of nats, so ∂objective/∂nll is known before the loss is. The
gradient is therefore computed together with the loss, some rows of the logits at a time, while
the probabilities are at hand: nothing of size [N, V] is kept and no product is done twice (as in
Liger-Kernel's fused linear cross-entropy, Hsu et al. 2024).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm.models.embedding import TiedGradient
from lm.models.kernels import native_loss, native_softmax

Gradients = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
# (features, weight, bias, targets, share, weight_too=…) → nll, the gradients of the first three.
Way = Callable[..., Gradients]

# Logits of one chunk of rows: the largest buffer that glibc reuses. A weight in low precision is
# held whole up to this size, and beyond it in parts.
CHUNK_BYTES = 32 << 20
PART_BYTES = 8 << 20
# But at least this much of each word's column: with fewer rows (176 in float32) the gradient of a
# large vocabulary is read and written too often for what is multiplied in between.
LEAST_COLUMN_BYTES = 704
# Logits that are worked on point by point in one go: small enough to stay in the cache, and at
# least so many rows that every core has one.
BLOCK_ELEMENTS = 512 * 1024
BLOCK_ROWS = 4


class _Loss(torch.autograd.Function):
    """Σ_n share_n · nll_n, and nll [N], which is for reporting and has no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        share: Tensor,
        dtype: torch.dtype,
        tied: TiedGradient | None,
        way: Way,
    ) -> tuple[Tensor, Tensor]:
        nll, *gradients = way(
            features.to(dtype), weight, bias, targets, share, weight_too=ctx.needs_input_grad[1]
        )
        ctx.save_for_backward(*gradients)
        ctx.features_dtype, ctx.tied = features.dtype, tied
        ctx.mark_non_differentiable(nll)
        return (nll * share).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = list(ctx.saved_tensors)
        # A factor of one is the rule; on the CPU looking costs nothing, multiplying a pass over V.
        if grad.device.type != "cpu" or float(grad) != 1.0:
            gradients = [None if g is None else g * grad for g in gradients]
        d_features, d_weight, d_bias = gradients
        if ctx.tied is not None and d_weight is not None:
            ctx.tied.put(d_weight)
            d_weight = None
        return d_features.to(ctx.features_dtype), d_weight, d_bias, None, None, None, None, None


class _RowNLL(torch.autograd.Function):
    """nll [N], each with a gradient of its own; logits are computed twice and never kept."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        way: Way,
    ) -> Tensor:
        x = features.to(dtype)
        ctx.save_for_backward(x, weight, bias, targets)
        ctx.features_dtype, ctx.way = features.dtype, way
        return _nll(x, weight, bias, targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, targets = ctx.saved_tensors
        _, d_features, d_weight, d_bias = ctx.way(
            x, weight, bias, targets, share, weight_too=ctx.needs_input_grad[1]
        )
        return d_features.to(ctx.features_dtype), d_weight, d_bias, None, None, None


def row_nll(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    dtype: torch.dtype | None = None,
    way: Way | None = None,
) -> Float[Tensor, " N"]:
    """−log softmax(W x_n + b)[target_n], for objectives that are no weighted sum of these.

    The objective must not fall as any of them grows: the kernels take shares that are not negative.
    """
    dtype = dtype or weight.dtype
    way = way or next(iter(ways(weight, dtype).values()))
    nll: Tensor = _RowNLL.apply(features, weight, bias, targets, dtype, way)  # type: ignore[no-untyped-call]
    return nll


def linear_loss(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    share: Float[Tensor, " N"] | None = None,
    dtype: torch.dtype | None = None,
    tied: TiedGradient | None = None,
    way: Way | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """The objective Σ share_n · nll_n with nll_n = −log softmax(W x_n + b)[target_n], and nll.

    Args:
        share: weight of each token, not negative; None is the mean, 1/N each.
        dtype: of the operands of the products; None is that of the weight.
        tied: takes the weight's gradient, which then does not reach the weight from here.
        way: one of `ways`; None is the first.
    """
    if share is None:
        share = weight.new_full((len(targets),), 1 / len(targets))
    dtype = dtype or weight.dtype
    way = way or next(iter(ways(weight, dtype).values()))
    objective, nll = _Loss.apply(  # type: ignore[no-untyped-call]
        features, weight, bias, targets, share, dtype, tied, way
    )
    return objective, nll


@torch.no_grad()
def linear_nll(
    features: Float[Tensor, "N F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """−log softmax(W x_n + b)[target_n] in nats, without a gradient: for evaluation."""
    return _nll(features, weight, bias, targets)


def _nll(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """nll in the weight's dtype, the products in that of x."""
    nll = weight.new_empty(len(targets))
    operand = weight.to(x.dtype)
    for rows in row_chunks(x, len(weight)):
        _to_gradient(x[rows] @ operand.T, bias, targets[rows], nll[rows], None)
    return nll


def ways(weight: Tensor, dtype: torch.dtype) -> dict[str, Way]:
    """How to compute the loss and its gradient with products in `dtype`, by name; the best first.

    The compiled way does not round the logits to `dtype`.
    """
    native = {"native": through_exponentials} if native_loss.can_run(weight, dtype) else {}
    return {**native, "torch": through_logits}


def through_exponentials(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    share: Tensor,
    *,
    weight_too: bool,
) -> Gradients:
    """nll and the gradients of features, weight and bias, by products in C."""
    operands = x, weight, bias, targets, share
    chunks = row_chunks(x, len(weight))
    found = native_loss.loss_and_gradients(*operands, chunks) if weight_too else None
    return found or through_logits(*operands, weight_too=weight_too)


def through_logits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    share: Tensor,
    *,
    weight_too: bool,
) -> Gradients:
    """nll and the gradients of features, weight and bias, by torch's products."""
    nll = weight.new_empty(len(x))
    d_x = torch.empty(x.shape, dtype=weight.dtype, device=x.device)
    d_weight = torch.empty_like(weight) if weight_too else None
    d_bias = None if bias is None else torch.zeros_like(bias)
    operands = Operands(weight, x.dtype)
    chunks = list(row_chunks(x, len(weight)))
    buffer = x.new_empty(chunks[0].stop, len(weight))
    for rows in chunks:
        logits = buffer[: rows.stop - rows.start]
        for words, operand in operands:
            torch.mm(x[rows], operand.T, out=logits[:, words])
        _to_gradient(logits, bias, targets[rows], nll[rows], share[rows], d_bias)
        for words, operand in operands:
            add = words.start > 0
            accumulate(d_x[rows], logits[:, words], operand, add=add)
            if d_weight is not None:
                accumulate(d_weight[words], logits[:, words].T, x[rows], add=rows.start > 0)
    return nll, d_x, d_weight, d_bias


class Operands:
    """The weight in the dtype of the products, whole if that is small, else some words at a time:
    a large vocabulary's weight is not held twice.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        size, row_bytes = len(weight), weight.shape[1] * dtype.itemsize
        if dtype != weight.dtype and size * row_bytes > CHUNK_BYTES:
            size = max(1, PART_BYTES // row_bytes)
        self._parts = [slice(k, min(k + size, len(weight))) for k in range(0, len(weight), size)]
        self._weight, self._dtype = weight, dtype
        self._whole = weight.to(dtype) if len(self._parts) == 1 else None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for words in self._parts:
            yield words, self._weight[words].to(self._dtype) if self._whole is None else self._whole


def accumulate(total: Tensor, a: Tensor, b: Tensor, *, add: bool) -> None:
    """total (+)= a b, where the product may have a lower precision than the total."""
    if total.dtype == a.dtype:
        torch.addmm(total, a, b, beta=1.0 if add else 0.0, out=total)
    elif add:
        total += a @ b
    else:
        total.copy_(a @ b)


def _to_gradient(
    logits: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    nll: Tensor,
    share: Tensor | None,
    d_bias: Tensor | None = None,
) -> None:
    """Fill nll; with a share, turn logits in place into ∂objective/∂logits and add up d_bias.

    By the compiled kernel where there is one. Else point-wise work happens in the precision of nll,
    block by block, and the normaliser comes from the most probable token, whose probability cannot
    underflow: log Z = max z − log max p.
    """
    if native_softmax.can_run(logits, nll):
        native_softmax.to_gradient(logits, bias, targets, nll, share, d_bias)
        return
    rows = max(BLOCK_ROWS, BLOCK_ELEMENTS // logits.shape[1])
    for begin in range(0, len(logits), rows):
        some = slice(begin, begin + rows)
        z, y = logits[some].to(nll.dtype), targets[some, None]
        if bias is not None:
            z += bias
        peak, wanted = z.amax(1), z.gather(1, y).squeeze(1)
        p = torch.softmax(z, 1, out=z)
        torch.sub(peak - wanted, p.amax(1).log_(), out=nll[some])
        if share is None:
            continue
        # ∂nll/∂z = p − onehot(target)
        p.mul_(share[some, None]).scatter_add_(1, y, -share[some, None])
        if d_bias is not None:
            d_bias += p.sum(0)
        if p.dtype != logits.dtype:
            logits[some] = p


def row_chunks(x: Tensor, num_words: int) -> Iterator[slice]:
    """Slices of the N rows of x, whose logits are small enough to be reused."""
    step = max(LEAST_COLUMN_BYTES, CHUNK_BYTES // num_words) // x.itemsize
    for begin in range(0, len(x), step):
        yield slice(begin, min(begin + step, len(x)))
