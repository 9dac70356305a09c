"""The softmax loss of rows of logits in C: `native/softmax.h`."""

import torch
from torch import Tensor

from lm.models.kernels import native


def can_run(logits: Tensor, nll: Tensor) -> bool:
    """Whether there is a compiled kernel for these: float64, float32, or bf16 beside float32."""
    wanted = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return nll.dtype == wanted and logits.is_contiguous() and native.can_run_on(logits)


def to_gradient(
    logits: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    nll: Tensor,
    share: Tensor | None,
    d_bias: Tensor | None,
) -> None:
    """Fill nll; with a share, turn logits in place into ∂objective/∂logits and add up d_bias.

    Args:
        logits: [N, V] without the bias; see `can_run`.
        nll: [N], contiguous; its dtype is that of bias and d_bias [V] and of share [N].

    Raises:
        IndexError: a target is no column of the logits.
    """
    rows, columns = logits.shape
    if rows == 0:
        return
    native.check_words(targets, columns)
    threads = min(torch.get_num_threads(), rows)
    parts = None if d_bias is None or share is None else nll.new_zeros(threads, columns)
    scratch = nll.new_empty(threads, 2, columns)
    native.call(
        "softmax",
        logits.dtype,
        (rows, columns, threads),
        (
            logits,
            None if bias is None else bias.contiguous(),
            targets.contiguous(),
            None if share is None else share.contiguous(),
            nll,
            scratch,
            parts,
        ),
    )
    if d_bias is not None and parts is not None:
        d_bias += parts.sum(0)
