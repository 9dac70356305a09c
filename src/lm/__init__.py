"""Train, evaluate, sample and reuse recurrent language models.

`lm.load(path)` gives a trained model ready to generate and score, `lm.train(overrides)` is
`lm train` for a notebook, `lm.register(group, name, schema)` adds a component of your own. They
are imported on first use, so that `import lm` and `lm --help` do not wait for torch.
"""

from importlib import import_module  # noqa: TID251 (the names stand below)
from typing import Any

__version__ = "0.1.0"

_LAZY = {"load": "lm.loading", "register": "lm.config", "train": "lm.cli.launch"}

__all__ = ["__version__", "load", "register", "train"]


def __getattr__(name: str) -> Any:
    """The public functions, from the module that owns them (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
