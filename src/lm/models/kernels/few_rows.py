"""W x + b for a few rows, again and again: what generation consists of."""

import torch
from jaxtyping import Float
from torch import Tensor

from lm.models.kernels.products import can_pack

# What a product of few rows costs is reading the matrix, at twice the speed when it lies
# transposed. A matrix above this size (bytes) is not worth holding twice.
_LARGEST_COPY = 256 * 2**20
# Below this many elements a call of oneDNN costs more than its packed layout saves.
_SMALLEST_PACKED = 500_000


class FewRowsLinear:
    """W x + b for a fixed number of streams, with W in the layout that is fastest for so many."""

    def __init__(
        self, weight: Float[Tensor, "M K"], bias: Float[Tensor, " M"] | None, num_streams: int
    ) -> None:
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias
        self.packed: Tensor | None = None
        self.transposed = weight.T
        if weight.numel() * weight.element_size() > _LARGEST_COPY:
            return
        # oneDNN is the slower one for a single row.
        if num_streams > 1 and weight.numel() >= _SMALLEST_PACKED and can_pack(weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), num_streams)
        elif weight.device.type == "cpu":
            self.transposed = weight.T.contiguous()

    def __call__(self, x: Float[Tensor, "B K"]) -> Float[Tensor, "B M"]:
        if self.packed is None:
            return torch.addmm(self.bias, x, self.transposed)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y

    def into(self, out: Float[Tensor, "B M"], x: Float[Tensor, "B K"]) -> None:
        """The same, written to a buffer."""
        if self.packed is None:
            torch.addmm(self.bias, x, self.transposed, out=out)
        else:
            out.copy_(self(x))
