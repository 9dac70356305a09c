"""Models to export, and a program that exports them outside pytest.

The checks of signatures that run in all tests would be traced with the model, so what traces it
runs in a process of its own: `python export_cases.py FOLDER NAME…`.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from lm.data.corpus import Unit
from lm.data.tokenizers import ByteTokenizer
from lm.export.folder import Subject, export
from lm.export.form import ExportFormat
from lm.models import CELLS, RecurrentConfig, RecurrentModel
from lm.models.adaptive import AdaptiveConfig
from lm.models.mixture import MixtureConfig
from lm.models.recurrent_config import HeadKind, InitialState
from lm.models.rnn import Nonlinearity
from lm.models.slstm import ForgetGate
from lm.runtime.randomness import generator

HEADS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "no bias": {"output_bias": False},
    "tied": {"tied": True},
    "adaptive": {"head": HeadKind.adaptive, "adaptive": AdaptiveConfig(cutoffs=[20, 90])},
    "adaptive, tied": {
        "head": HeadKind.adaptive, "tied": True, "adaptive": AdaptiveConfig(divisor=1.0),
    },
    "mixture": {"head": HeadKind.mixture, "mixture": MixtureConfig(experts=3)},
    "mixture, tied": {
        "head": HeadKind.mixture, "tied": True, "mixture": MixtureConfig(experts=3),
    },
}  # fmt: skip
STACKS: dict[str, dict[str, Any]] = {
    "residual": {"residual": True, "num_layers": 3, "hidden_size": 12},
    "skip": {"skip": True, "num_layers": 3, "hidden_size": 12},
    "learned state": {"initial_state": InitialState.learned, "num_layers": 2},
    "one layer": {"num_layers": 1},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("rnn", {"nonlinearity": Nonlinearity.relu}),
    "sigmoid": ("rnn", {"nonlinearity": Nonlinearity.sigmoid}),
    "two biases": ("gru", {"num_biases": 2}),
    "exponential": ("slstm", {"forget_gate": ForgetGate.exponential}),
    "narrow filter": ("qrnn", {"filter_width": 1}),
    "wide filter": ("qrnn", {"filter_width": 3}),
    "low rank": ("mogrifier", {"rank": 2}),
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{cell}, {head}": (cell, HEADS[head]) for cell in CELLS for head in HEADS},
    **{f"lstm, {name}": ("lstm", STACKS[name]) for name in STACKS},
    **VARIANTS,
}
"""Name → cell, and the fields of its configuration."""


def config_of(name: str) -> RecurrentConfig:
    cell, fields = CASES[name]
    return CELLS[cell](**{"embedding_size": 12, "hidden_size": 16, "num_layers": 2, **fields})


def subject_of(name: str) -> Subject:
    """An untrained model whose parameters are large enough that every one of them matters."""
    tokenizer, config = ByteTokenizer(), config_of(name)
    model = config.build(tokenizer.vocab_size, seed=3).eval().requires_grad_(False)
    assert isinstance(model, RecurrentModel)
    draws = generator(3, 0, "export cases")
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    return Subject(model, tokenizer, config, Unit.stream, "step-000000000", begin=10)


def main() -> None:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        for form in ExportFormat:
            found = export(subject_of(name), form, folder / name / form.value)
            sys.stdout.write(f"{name}\t{form.value}\t{found.log_prob}\t{found.state}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
