"""The programs as torch's ExportedProgram files (.pt2), for a program that has torch but not `lm`.

`torch.export.load` is theirs to call: nothing in `lm` reads such a file. It is a zip archive of
JSON and raw weights, but its loader also unpickles whatever parts say that they are pickles, so a
.pt2 of a stranger can run code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from lm.runtime.files import sync

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def write_programs(folder: Path, programs: "Mapping[str, ExportedProgram]") -> None:
    """`NAME.pt2` of each program; synced."""
    from torch.export import save

    for name, program in programs.items():
        path = folder / f"{name}.pt2"
        save(program, path)
        sync(path)


class TorchRunner:
    """An exported program, on tensors."""

    def __init__(self, program: "ExportedProgram") -> None:
        self._module = program.module()

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return cast(tuple[Tensor, list[Tensor]], self._module(tokens, state))
