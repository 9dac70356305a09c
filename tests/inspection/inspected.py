"""A small recurrent model and a text of random tokens for it to read."""

from pathlib import Path

import torch

from lm.data.store import Block, TokenStore, write_store
from lm.models import CELLS, RecurrentModel
from lm.runtime.compute import Compute, Kernels

VOCABULARY = 11


def store_of(folder: Path, length: int, seed: int = 0) -> TokenStore:
    ids = torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))
    return write_store(folder / "store", [Block(ids.numpy())], vocab_size=VOCABULARY)


def model_of(cell: str = "lstm", **fields: object) -> RecurrentModel:
    """In float64, so that gradients of long ago are not lost in rounding."""
    sizes = {"embedding_size": 4, "hidden_size": 5, "num_layers": 1}
    config = CELLS[cell](**{**sizes, **fields})
    model = config.build(VOCABULARY, seed=3).double()
    assert isinstance(model, RecurrentModel)
    model.compute = Compute(kernels=Kernels.reference)
    return model.requires_grad_(False)
