"""Small checkpoints for the rows that need no training."""

from pathlib import Path

import torch

from lm.checkpoint import Checkpoint, CheckpointFolder

FILES = (
    "model.safetensors", "training.safetensors", "state.json", "config.yaml", "tokenizer.json",
    "manifest.json",
)  # fmt: skip
KEEP = 2


def example(step: int, size: int = 400) -> Checkpoint:
    """A checkpoint that says which step it is of, in each of its parts."""
    weight = torch.randn(size, generator=torch.Generator().manual_seed(step))
    return Checkpoint(
        model={"weight": weight},
        training={"optimizer/momentum": weight * 2, "step": torch.tensor(float(step))},
        state={"progress": {"step": step}},
        config=f"seed: {step}\n",
        tokenizer={"kind": "byte", "step": step},
    )


def saved(folder: Path, *steps: int, best: int | None = None, size: int = 400) -> CheckpointFolder:
    """A folder with checkpoints of these steps."""
    checkpoints = CheckpointFolder(folder)
    checkpoints.open_for_writing()
    for step in steps:
        checkpoints.save(step, example(step, size), best=step == best, keep=KEEP)
    return checkpoints
