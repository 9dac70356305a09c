"""One root schema per verb: what the whole configuration of a command is made of."""

from typing import Any

from lm.config.roots.evaluate import EvaluateConfig
from lm.config.roots.export import ExportConfig
from lm.config.roots.generate import GenerateConfig
from lm.config.roots.import_ import ImportConfig
from lm.config.roots.training import (
    Interruption,
    ReproduceConfig,
    TrainConfig,
    VerifyResumeConfig,
)

__all__ = [
    "ROOTS",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "ImportConfig",
    "Interruption",
    "ReproduceConfig",
    "TrainConfig",
    "VerifyResumeConfig",
]

ROOTS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "reproduce": ReproduceConfig,
    "verify-resume": VerifyResumeConfig,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "export": ExportConfig,
    "import": ImportConfig,
}
"""Verb → root schema."""
