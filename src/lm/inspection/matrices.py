"""The recurrent matrices: spectral radius and singular values, gate by gate.

In a linear Elman network gradients over k steps are multiplied by W_hh^k: they vanish where the
largest singular value is below 1, and cannot explode unless it is above (Pascanu, Mikolov & Bengio
2013, section 2.1); how fast they do in the long run is the spectral radius' say.
"""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lm.models import RecurrentModel
from lm.models.base import Cell


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Of one matrix that multiplies the state.

    Attributes:
        name: of the parameter, with the gate in whose rows it stands.
        singular_values: falling.
        eigenvalues: real and imaginary parts; None of a matrix that is not square.
    """

    name: str
    singular_values: list[float]
    eigenvalues: list[tuple[float, float]] | None

    @property
    def norm(self) -> float:
        """The largest singular value."""
        return self.singular_values[0]

    @property
    def radius(self) -> float | None:
        """The largest absolute eigenvalue."""
        if self.eigenvalues is None:
            return None
        return max(abs(complex(*value)) for value in self.eigenvalues)

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {**asdict(self), "norm": self.norm, "radius": self.radius}


@torch.no_grad()
def measure_matrices(model: RecurrentModel) -> list[list[Spectrum]]:
    """Per layer; a layer whose gates do not see its state has none."""
    return [[_spectrum(name, block) for name, block in _blocks(cell)] for cell in model.cells]


def _blocks(cell: Cell) -> list[tuple[str, Tensor]]:
    """The recurrent matrices, cut into the rows of each gate."""
    found = []
    for name in cell.recurrent_matrices:
        matrix, gates = cell.weights()[name].detach(), cell.gate_rows
        if gates and len(matrix) % len(gates) == 0:
            found += [
                (f"{name}.{g}", rows)
                for g, rows in zip(gates, matrix.chunk(len(gates)), strict=True)
            ]
        else:
            found.append((name, matrix))
    return found


def _spectrum(name: str, matrix: Float[Tensor, "M N"]) -> Spectrum:
    matrix = matrix.double().cpu()
    eigenvalues = None
    if matrix.shape[0] == matrix.shape[1]:
        values = torch.linalg.eigvals(matrix)
        eigenvalues = list(zip(values.real.tolist(), values.imag.tolist(), strict=True))
    return Spectrum(name, torch.linalg.svdvals(matrix).tolist(), eigenvalues)
