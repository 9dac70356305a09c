"""Shared set-up: shapes and types of every signature in `lm` are checked while testing."""

import os

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("lm", "typechecking.typecheck")

# The tests' tensors are tiny: a second thread costs more than it gives.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fsync_is_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that dies takes the disk with it; what is synced when is tested by recording calls."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
