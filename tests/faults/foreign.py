"""Weights as another program saves them with torch: good ones, and what poses as such."""

import io
from pathlib import Path

import torch
from payloads import executables
from torch import Tensor

VOCABULARY = "<eos>\n<unk>\nthe\n"
_SIZE, _GATES = 4, 16


def saved(content: object) -> bytes:
    """The file that `torch.save` makes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def good() -> dict[str, Tensor]:
    """A state dict in the names of pytorch/examples."""
    return {
        "encoder.weight": torch.ones(3, _SIZE),
        "decoder.weight": torch.ones(3, _SIZE),
        "decoder.bias": torch.ones(3),
        "rnn.weight_ih_l0": torch.ones(_GATES, _SIZE),
        "rnn.weight_hh_l0": torch.ones(_GATES, _SIZE),
        "rnn.bias_ih_l0": torch.ones(_GATES),
        "rnn.bias_hh_l0": torch.ones(_GATES),
    }


def hostile(canary: Path) -> dict[str, bytes]:
    """Pickles that run something, and tensors that are not what they seem."""
    matrix = torch.ones(3, _SIZE)
    others: dict[str, Tensor] = {
        "a sparse matrix": matrix.to_sparse(),
        "a tensor without data": matrix.to("meta"),
        "whole numbers": matrix.long(),
        "no number": torch.full_like(matrix, torch.nan),
        "a row": matrix[0],
    }
    # A terabyte of ones in one number.
    wide = {name: t[:1].expand(1 << 40, _SIZE) for name, t in good().items() if t.ndim > 1}
    return {
        **executables(canary),
        **{kind: saved(good() | {"decoder.weight": tensor}) for kind, tensor in others.items()},
        "views of one number": saved(good() | wide),
        "a name that is none": saved({**good(), 3: matrix}),
        "a list": saved([1, 2]),
        "a matrix too many": saved({**good(), "rnn.weight_hh_l7": matrix}),
    }
