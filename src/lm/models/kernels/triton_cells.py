"""Triton sequence kernels for one recurrent layer: LSTM, GRU and Elman RNN.

All input products are one product over the window; each time step is one fused kernel that
multiplies h_{t−1} by the recurrent matrix and does the gate arithmetic of its units. The launches
are many and small, which a captured CUDA graph makes cheap. Backward mirrors it, and the gradients
of weights and input are one product each after the loop.

Precision: products in the dtype of the weight matrices (float32 or bfloat16) with float32
accumulation; biases, states and everything point-wise in float32. y has the weights' dtype, the
final states are float32, and every gradient has the dtype of what it is the gradient of.

Importing this module needs no Triton. Calling a kernel does, and raises ImportError without it.
The tensors lie on the current CUDA device, or on the CPU under Triton's interpreter, which
TRITON_INTERPRET=1 selects if it is set before Triton is first imported.
"""

from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor


def available() -> bool:
    """Whether Triton is installed. It says nothing about the device."""
    return find_spec("triton") is not None


def lstm(
    x: Float[Tensor, "T B I"],
    h: Float[Tensor, "B H"],
    c: Float[Tensor, "B H"],
    weight_ih: Float[Tensor, "4*H I"],
    weight_hh: Float[Tensor, "4*H H"],
    bias: Float[Tensor, " 4*H"] | None,
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "B H"], Float[Tensor, "B H"]]:
    """The equations of `lm.models.lstm`, gates stacked as i, f, g, o; `bias` is the total bias.

    Returns:
        y, and the final h and c.
    """
    from lm.models.kernels.triton_lstm import LSTMFunction

    training = torch.is_grad_enabled()
    y, h, c = LSTMFunction.apply(x, h, c, weight_ih, weight_hh, bias, training)  # type: ignore[no-untyped-call]
    return y, h, c


def gru(
    x: Float[Tensor, "T B I"],
    h: Float[Tensor, "B H"],
    weight_ih: Float[Tensor, "3*H I"],
    weight_hh: Float[Tensor, "3*H H"],
    bias_ih: Float[Tensor, " 3*H"] | None,
    bias_hh: Float[Tensor, " 3*H"] | None,
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "B H"]]:
    """The equations of `lm.models.gru`, gates stacked as r, z, n.

    Returns:
        y, and the final h.
    """
    from lm.models.kernels.triton_gru import GRUFunction

    training = torch.is_grad_enabled()
    y, h = GRUFunction.apply(x, h, weight_ih, weight_hh, bias_ih, bias_hh, training)  # type: ignore[no-untyped-call]
    return y, h


def rnn(
    x: Float[Tensor, "T B I"],
    h: Float[Tensor, "B H"],
    weight_ih: Float[Tensor, "H I"],
    weight_hh: Float[Tensor, "H H"],
    bias: Float[Tensor, " H"] | None,
    nonlinearity: str,
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "B H"]]:
    """The equation of `lm.models.rnn`; `nonlinearity` is tanh, relu or sigmoid.

    Returns:
        y, and the final h.
    """
    from lm.models.kernels.triton_rnn import RNNFunction

    assert nonlinearity in ("tanh", "relu", "sigmoid"), nonlinearity
    training = torch.is_grad_enabled()
    y, h = RNNFunction.apply(x, h, weight_ih, weight_hh, bias, nonlinearity, training)  # type: ignore[no-untyped-call]
    return y, h
