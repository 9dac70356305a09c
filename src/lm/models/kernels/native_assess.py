"""What logits say of their targets, in C: `native/assess.h`."""

import torch
from torch import Tensor

from lm.models.kernels import native


def can_run(logits: Tensor) -> bool:
    """Whether there is a compiled kernel for these logits."""
    wanted = logits.dtype in (torch.float32, torch.float64)
    return wanted and logits.is_contiguous() and native.can_run_on(logits)


def assess(
    logits: Tensor, bias: Tensor | None, targets: Tensor, nll: Tensor, entropy: Tensor, rank: Tensor
) -> None:
    """Fill nll and entropy [N], in nats, and the targets' ranks [N], 1 for the most probable.

    Args:
        logits: [N, V] without the bias; see `can_run`.
        nll, entropy: contiguous, in the dtype of the logits; rank: contiguous, int64.

    Raises:
        IndexError: a target is no column of the logits.
    """
    rows, columns = logits.shape
    if rows == 0:
        return
    native.check_words(targets, columns)
    native.call(
        "assess",
        logits.dtype,
        (rows, columns, min(torch.get_num_threads(), rows)),
        (
            logits,
            None if bias is None else bias.contiguous(),
            targets.contiguous(),
            nll,
            entropy,
            rank,
        ),
    )
    rank += 1
