"""The root schema of `lm export`."""

from dataclasses import dataclass

from omegaconf import MISSING

from lm.export.form import ExportFormat


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """`lm export`: a model for programs that do not have `lm`.

    Attributes:
        run: a run directory or a checkpoint.
        checkpoint: which one of the run: `best`, `last` or a name such as `step-000001000`.
        format: `onnx`, or `torch` for programs of `torch.export`.
        output: the folder to make; it must not exist, or be empty.
    """

    run: str = MISSING
    checkpoint: str = "best"
    format: ExportFormat = ExportFormat.onnx
    output: str = MISSING
