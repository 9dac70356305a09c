"""One root schema per verb: what the whole configuration of a command is made of."""

from typing import Any

from lm.config.roots.evaluate import EvaluateConfig
from lm.config.roots.generate import GenerateConfig
from lm.config.roots.import_ import ImportConfig
from lm.config.roots.inspect import InspectConfig
from lm.config.roots.training import (
    Interruption,
    ReproduceConfig,
    TrainConfig,
    VerifyResumeConfig,
)

__all__ = [
    "ROOTS",
    "EvaluateConfig",
    "GenerateConfig",
    "ImportConfig",
    "InspectConfig",
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
    "inspect": InspectConfig,
    "generate": GenerateConfig,
    "import": ImportConfig,
}
"""Verb → root schema."""
