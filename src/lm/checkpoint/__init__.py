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
from lm.checkpoint.newest import run_meant

__all__ = [
    "MANIFEST",
    "Checkpoint",
    "CheckpointFolder",
    "detached",
    "read",
    "read_any",
    "run_meant",
    "verifies",
    "verify",
    "write",
]
