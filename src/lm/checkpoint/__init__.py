"""Checkpoints: atomic, verified, free of pickle, and enough to continue to the last bit."""

from lm.checkpoint.folder import CheckpointFolder, read_any
from lm.checkpoint.format import (
    MANIFEST,
    Checkpoint,
    detached,
    read,
    verifies,
    verify,
    write,
)

__all__ = [
    "MANIFEST",
    "Checkpoint",
    "CheckpointFolder",
    "detached",
    "read",
    "read_any",
    "verifies",
    "verify",
    "write",
]
