"""What a checkpoint says of its run, so that nothing is mixed up: architecture, tokenizer, data,
machine.
"""

import logging
from collections.abc import Mapping
from typing import Any

from lm.data.tokenizers import Tokenizer
from lm.errors import CheckpointError
from lm.models import ModelConfig
from lm.runtime.untrusted import as_object, as_texts, shown

log = logging.getLogger(__name__)

_FILES = {"architecture": "config.yaml", "tokenizer": "tokenizer.json"}


def fingerprints(model: ModelConfig, tokenizer: Tokenizer) -> dict[str, str]:
    """SHA-256 of what the weights mean something with."""
    return {"architecture": model.fingerprint, "tokenizer": tokenizer.fingerprint}


def compare_fingerprints(now: Mapping[str, object], saved: Mapping[str, Any]) -> None:
    """Architecture and tokenizer must be those that the weights were trained with.

    Args:
        saved: a checkpoint's state; one that does not have them is believed.

    Raises:
        CheckpointError: naming which differs.
    """
    for name, file in _FILES.items():
        if name in saved and saved[name] != now[name]:
            raise CheckpointError(
                f"the {name} is not the one that the weights were trained with (fingerprint): "
                f"{file} has been changed or exchanged",
                "Restore the checkpoint, or use another one of the run.",
            )


def compare_identity(now: dict[str, object], saved: dict[str, Any]) -> None:
    """As `compare_fingerprints`; the data must be the same too; another machine is said aloud.

    Raises:
        CheckpointError: something differs from what the run was trained with.
    """
    compare_fingerprints(now, saved)
    data, trained_on = now["data"], as_texts(saved.get("data", {}), "state.data")
    assert isinstance(data, dict)
    if data != trained_on:
        which = ", ".join(name for name, found in data.items() if found != trained_on.get(name))
        raise CheckpointError(
            f"the data differ from those of the checkpoint (fingerprint of the tokens): {which}",
            "Restore the data, or start a new run with init_from=.",
        )
    old, new = as_object(saved.get("machine", {}), "state.machine"), now["machine"]
    assert isinstance(new, dict)
    if not old:
        return
    old = {"processes": 1, **old}  # which checkpoints of earlier versions do not say
    differs = [f"{k} {shown(old.get(k))} → {shown(v)}" for k, v in new.items() if old.get(k) != v]
    if differs:
        log.warning("resumed, not bit-exact: %s", ", ".join(differs))
