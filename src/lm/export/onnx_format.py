"""The programs as ONNX graphs (operator set 18 or later) that share one file of weights.

torch's exporter turns the `scan` of a window into ONNX's Scan, whose body is one step. Afterwards
the large tensors move into a file beside the graphs, each once, whichever graph holds it: two
graphs then cost no more than one, and none of them meets the two gigabytes of a protobuf message.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lm.errors import ConfigError
from lm.export.graphs import new
from lm.runtime.files import sync, write_atomically

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

WEIGHTS = "weights.bin"
# What is smaller stays in the graph, where shapes are inferred from it.
_INLINE_BYTES = 1024
_ALIGNMENT = 64
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Find out whether the extra is installed.

    Raises:
        ConfigError: it is not.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"format=onnx needs {', '.join(missing)}, which is not installed",
            "pip install onnx onnxscript onnxruntime",
        )


def write_graphs(
    folder: Path, programs: "Mapping[str, ExportedProgram]", state_names: list[str]
) -> None:
    """`NAME.onnx` of each program, and the weights of all of them; synced."""
    digests: dict[bytes, tuple[int, int]] = {}
    with (folder / WEIGHTS).open("wb") as weights:
        for name, program in programs.items():
            graph = _converted(program, state_names)
            for tensor in graph.graph.initializer:
                if len(tensor.raw_data) >= _INLINE_BYTES:
                    _move(tensor, weights, digests)
            write_atomically(folder / f"{name}.onnx", graph.SerializeToString())
    sync(folder / WEIGHTS)


def _move(tensor: "onnx.TensorProto", weights: Any, places: dict[bytes, tuple[int, int]]) -> None:
    """A tensor's bytes from the graph to the file of weights, unless they are there already."""
    from onnx import TensorProto

    digest = hashlib.sha256(tensor.raw_data).digest()
    if digest not in places:
        weights.write(bytes(-weights.tell() % _ALIGNMENT))
        places[digest] = weights.tell(), len(tensor.raw_data)
        weights.write(tensor.raw_data)
    offset, length = places[digest]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _converted(program: "ExportedProgram", state_names: list[str]) -> "onnx.ModelProto":
    """A program in ONNX, its inputs, outputs and open dimensions by the names of the README."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

    with _quiet():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["tokens", *state_names],
            output_names=["log_prob", *map(new, state_names)],
        )
    assert converted is not None
    RemoveUnusedNodesPass()(converted.model)  # onnxruntime warns of what the optimiser left behind
    # Python's stack at each node: nothing that another machine should learn of this one.
    ClearMetadataAndDocStringPass()(converted.model)
    graph: onnx.ModelProto = converted.model_proto
    graph.producer_name = "lm"
    del graph.graph.value_info[:]  # of intermediate values; a runtime infers them
    dims = graph.graph.input[0].type.tensor_type.shape.dim
    names = dict(zip([dim.dim_param for dim in dims], "TB"[-len(dims) :], strict=True))
    for value in (*graph.graph.input, *graph.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names[dim.dim_param]
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself: the graphs are checked against the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class OnnxRunner:
    """A graph in onnxruntime, on tensors."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        given = [tensor.numpy() for tensor in (tokens, *state)]
        found = self._session.run(None, dict(zip(self._names, given, strict=True)))
        log_prob, *after = map(torch.from_numpy, found)
        return log_prob, after
