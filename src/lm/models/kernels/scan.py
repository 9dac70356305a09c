"""Linear recurrences h_t = a_t · h_{t−1} + b_t, element by element: nothing in them multiplies the
state with a matrix, so they need no loop over time.

In parallel by doubling (Hillis & Steele 1986; Blelloch 1990): after the pass with distance d each
(a_t, b_t) stands for 2d steps, since (a, b) ∘ (a', b') = (a a', a b' + b). That is log T passes
over the window, each of them wide: what a GPU wants. A loop makes one narrow pass per step with
less arithmetic in all, which a CPU may prefer; which is faster is measured. No logarithms are taken
(Heinsen 2023), since with 0 ≤ a ≤ 1 products of a do not overflow.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_recurrence(
    a: Float[Tensor, "T B H"],
    b: Float[Tensor, "T B H"],
    start: Float[Tensor, "B H"],
    *,
    parallel: bool,
) -> Float[Tensor, "T B H"]:
    """h_t = a_t · h_{t−1} + b_t for all t, h_0 before the window being `start`."""
    h: Tensor = _Recurrence.apply(a, b, start, parallel)  # type: ignore[no-untyped-call]
    return h


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor, parallel: bool) -> Tensor:
        h = _scan(a, b, start, parallel)
        ctx.save_for_backward(a, start, h)
        ctx.parallel = parallel
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        a, start, h = ctx.saved_tensors
        # dh_t = dy_t + a_{t+1} · dh_{t+1}: the same recurrence, backwards in time.
        later = torch.cat([a[1:], torch.zeros_like(a[:1])]).flip(0)
        dh = _scan(later, dy.flip(0), torch.zeros_like(start), ctx.parallel).flip(0)
        before = torch.cat([start[None], h[:-1]])
        return dh * before, dh, a[0] * dh[0], None


def _scan(a: Tensor, b: Tensor, start: Tensor, parallel: bool) -> Tensor:
    return _by_doubling(a, b, start) if parallel else _step_by_step(a, b, start)


def _step_by_step(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    h = torch.empty_like(b)
    before = start
    for a_t, b_t, h_t in zip(a.unbind(), b.unbind(), h.unbind(), strict=True):
        torch.addcmul(b_t, a_t, before, out=h_t)
        before = h_t
    return h


def _by_doubling(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    h = b.clone()
    h[0].addcmul_(a[0], start)
    distance, steps = 1, len(b)
    while distance < steps:
        h = torch.cat([h[:distance], torch.addcmul(h[distance:], a[distance:], h[:-distance])])
        a = torch.cat([a[:distance], a[distance:] * a[:-distance]])
        distance *= 2
    return h
