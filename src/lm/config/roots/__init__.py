"""One root schema per verb: what the whole configuration of a command is made of."""

from typing import Any

from lm.config.roots.compare import CompareConfig
from lm.config.roots.evaluate import EvaluateConfig
from lm.config.roots.export import ExportConfig
from lm.config.roots.generate import GenerateConfig
from lm.config.roots.import_ import ImportConfig
from lm.config.roots.inspect import InspectConfig
from lm.config.roots.prepare import PrepareConfig
from lm.config.roots.score import ScoreConfig
from lm.config.roots.sweep import SweepConfig
from lm.config.roots.training import (
    Interruption,
    ReproduceConfig,
    TrainConfig,
    VerifyResumeConfig,
)

__all__ = [
    "ROOTS",
    "CompareConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "ImportConfig",
    "InspectConfig",
    "Interruption",
    "PrepareConfig",
    "ReproduceConfig",
    "ScoreConfig",
    "SweepConfig",
    "TrainConfig",
    "VerifyResumeConfig",
]

ROOTS: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "sweep": SweepConfig,
    "reproduce": ReproduceConfig,
    "verify-resume": VerifyResumeConfig,
    "evaluate": EvaluateConfig,
    "inspect": InspectConfig,
    "generate": GenerateConfig,
    "compare": CompareConfig,
    "score": ScoreConfig,
    "export": ExportConfig,
    "import": ImportConfig,
}
"""Verb → root schema."""
