"""The formats of `lm export`, apart from what writes them: the configuration loads no exporter."""

from enum import Enum


class ExportFormat(Enum):
    """For whom the model is exported.

    onnx: for runtimes of ONNX, in any language.
    torch: for torch without `lm`, as programs of `torch.export`.
    """

    onnx = "onnx"
    torch = "torch"
