"""Run directories made by hand: what a run leaves, without the training."""

import json
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = {"model": "lstm", "data": "text", "tokenizer": "word"}


def make_run(
    path: Path,
    fields: dict[str, Any] | None = None,
    *,
    schemas: dict[str, str] | None = None,
    summary: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    loss: float = 2.0,
) -> Path:
    """A finished run whose best validation loss is `loss`, and whose test loss is 0.1 above."""
    path.mkdir(parents=True)
    content = {"schemas": {**SCHEMAS, **(schemas or {})}, "seed": 1, **(fields or {})}
    (path / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    done: dict[str, Any] = {
        "status": "done", "steps": 30, "tokens": 3000, "seconds": 1.5, "best_step": 20,
        "best_valid_loss": loss, "parameters": 1234,
        "metrics": {
            "test/loss": loss + 0.1, "test/perplexity": 9.0, "test/bits_per_byte": loss / 2,
        },
    }  # fmt: skip
    (path / "summary.json").write_text(json.dumps(done if summary is None else summary))
    checkpoint = path / "checkpoints" / "step-000000030"
    checkpoint.mkdir(parents=True)
    identity = {"tokenizer": "t", "data": {"train": "a", "valid": "b", "test": "c"}}
    (checkpoint / "state.json").write_text(json.dumps({**identity, **(state or {})}))
    return path


def write_metrics(run: Path, *rows: dict[str, float | None]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
