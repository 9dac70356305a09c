"""Small stores, texts and models that the tests of evaluation share."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lm.data.corpus import Unit
from lm.data.store import Block, TokenStore, write_store
from lm.evaluation.text import Text
from lm.models import CELLS, RecurrentModel

V = 13


def ids_of(n: int, *, seed: int = 0, copies: int = 1) -> NDArray[np.int64]:
    """Random tokens; with copies, the same passage again and again."""
    passage = np.random.default_rng(seed).integers(0, V, -(-n // copies))
    return np.tile(passage, copies)[:n]


def store_of(folder: Path, ids: NDArray[np.int64], units: list[int] | None = None) -> TokenStore:
    ends = None if units is None else np.array(units, np.int64)
    return write_store(folder, [Block(ids, ends)], vocab_size=V)


def text_of(
    folder: Path, n: int, *, seed: int = 0, copies: int = 1, units: list[int] | None = None
) -> Text:
    unit = Unit.stream if units is None else Unit.document
    store = store_of(
        folder / f"store{n}-{seed}-{copies}", ids_of(n, seed=seed, copies=copies), units
    )
    return Text("toy", store, unit)


def model_of(name: str = "lstm", *, scale: float = 1.0, **fields: object) -> RecurrentModel:
    """A random model; a larger scale makes it surer of itself."""
    model = CELLS[name](**{"embedding_size": 5, "hidden_size": 6, **fields}).build(V, seed=2)
    for parameter in model.parameters():
        parameter.data.mul_(scale)
    return model.requires_grad_(False)


def block_of(text: Text) -> tuple[torch.Tensor, torch.Tensor]:
    """All tokens and all targets [T, 1]."""
    ids = torch.from_numpy(text.store[0 : len(text.store)])[:, None]
    return ids[:-1], ids[1:]


def resets_of(text: Text) -> torch.Tensor | None:
    if text.unit is Unit.stream:
        return None
    resets = torch.zeros(len(text.store) - 1, 1, dtype=torch.bool)
    resets[text.store.unit_ends(0, len(text.store) - 1)] = True
    return resets
