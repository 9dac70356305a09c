"""A layer's weights as its equations see them: a mapping by name, and the products with it.

Weight drop, state dropout, low precision and prepared matrices all act on that mapping, so that the
equations of a cell need not know of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lm.models.kernels.deferred import Deferred

Weights = Mapping[str, Tensor]

# In a cell's weights, where state dropout is on: the mask of h_{t−1} [B, H] of this window.
KEEP_H = "keep_h"


def kernel_weights(weights: Weights) -> list[Tensor]:
    """The weights in the order of torch's native kernels, which know two biases or none."""
    products = [weights["weight_ih"], weights["weight_hh"]]
    if "bias_ih" not in weights:
        return products
    bias = weights["bias_ih"].to(products[0].dtype)
    second = weights.get("bias_hh")
    return [*products, bias, torch.zeros_like(bias) if second is None else second.to(bias.dtype)]


def total_bias(weights: Weights) -> Tensor | None:
    """The sum of the biases, which is what acts; None without any."""
    biases = [weights[name] for name in ("bias_ih", "bias_hh") if name in weights]
    return sum(biases[1:], biases[0]) if biases else None


class PreparedWeights(dict[str, Tensor]):
    """A layer's weights for one window, some of them made ready for many products.

    Attributes:
        deferred: those, by name.
    """

    def __init__(self, weights: Weights, deferred: Mapping[str, Deferred]) -> None:
        super().__init__(weights)
        self.deferred = deferred


def input_product(x: Tensor, weights: Weights) -> Tensor:
    """W_ih x + b_ih, gates stacked along the last dimension; x itself where that was hoisted."""
    return product(x, weights, "weight_ih", "bias_ih") if "weight_ih" in weights else x


def recurrent_product(h: Tensor, weights: Weights) -> Tensor:
    """W_hh (m · h) + b_hh, gates stacked along the last dimension; m is the mask of state dropout,
    where there is one.
    """
    return product(keep_state(h, weights), weights, "weight_hh", "bias_hh")


def keep_state(h: Tensor, weights: Weights) -> Tensor:
    """h without the units that state dropout drops in this window."""
    return h * weights[KEEP_H] if KEEP_H in weights else h


def product(x: Tensor, weights: Weights, name: str, bias_name: str = "") -> Tensor:
    """W x + b in the weight's dtype, b where the weights have it; the result has the dtype of x."""
    weight, bias = weights[name], weights.get(bias_name)
    if isinstance(weights, PreparedWeights) and name in weights.deferred:
        result = weights.deferred[name](x.to(weight.dtype)).to(x.dtype)
    elif x.dtype == weight.dtype:
        return nn.functional.linear(x, weight, bias)
    else:
        result = nn.functional.linear(x.to(weight.dtype), weight).to(x.dtype)
    return result if bias is None else result + bias
