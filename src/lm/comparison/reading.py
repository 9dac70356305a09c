"""A run as it is compared, read from its directory as a stranger's: nothing in it is trusted."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.checkpoint import CheckpointFolder
from lm.comparison.finding import SUMMARY
from lm.errors import CheckpointError
from lm.runtime.ownership import living_owner
from lm.runtime.untrusted import (
    as_count,
    as_list,
    as_number,
    as_object,
    as_text,
    as_texts,
    contained,
    read_json_object,
    read_text,
    shown,
)

EVALUATION = "evaluation.json"
"""Where `lm evaluate output=<run>/evaluation.json` leaves what has an interval."""

STATUSES = ("done", "running", "stopped", "failed")
KILLED = "killed"
"""A run that says `running`, but whose process is gone."""

_MOST = 16 << 20
# Exact evaluation is done again on perhaps another machine.
_SAME = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A split's numbers; what is not known is None.

    Attributes:
        loss: nats per token.
        perplexity, bits_per_byte: as in `lm.metrics.perplexity.Score`.
        interval: of the perplexity.
        floor: nats per token that no model can be below, of a generated text.
    """

    loss: float | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    interval: tuple[float, float] | None = None
    floor: float | None = None

    @property
    def excess(self) -> float | None:
        """Nats per token above the floor; None where there is none."""
        if self.loss is None or self.floor is None:
            return None
        return self.loss - self.floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run's directory says of it; what it does not say is None or empty.

    Attributes:
        fields: its configuration by dotted names.
        status: one of `STATUSES`, or `KILLED`.
        parameters: of an n-gram model the n-grams.
        seconds: wall-clock time, evaluation included.
        best_loss: lowest validation loss in nats per token, at `best_step`.
        test: the best checkpoint's, exact.
        data: fingerprint of the tokens of each split.
        tokenizer: its fingerprint.
    """

    path: Path
    fields: Mapping[str, Any]
    status: str
    parameters: int | None = None
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    test: Outcome = Outcome()
    data: Mapping[str, str]
    tokenizer: str | None = None


def read_run(path: Path, fields: Mapping[str, Any]) -> Run:
    """A run and what is known of it.

    Args:
        fields: its configuration by dotted names, read by whoever knows configurations.

    Raises:
        CheckpointError: a file is missing or malformed, or a value is not what it has to be.
    """
    summary = _summary(path / SUMMARY)
    state = _newest_state(path)
    # A run under way has not summed itself up; its newest checkpoint says where it stood.
    progress = as_object(state.get("progress", {}), "state.progress")
    known = {
        "steps": progress.get("step"),
        "best_valid_loss": progress.get("best_loss"),
        **{name: progress.get(name) for name in ("tokens", "seconds", "best_step")},
        **summary,
    }
    tokenizer = state.get("tokenizer")
    return Run(
        path=path,
        fields=fields,
        status=_status(summary, path),
        parameters=_count(known, "parameters"),
        steps=_count(known, "steps"),
        tokens=_count(known, "tokens"),
        seconds=_number(known, "seconds"),
        best_step=_count(known, "best_step"),
        best_loss=_number(known, "best_valid_loss"),
        test=_test(as_object(known.get("metrics", {}), "summary.metrics"), path / EVALUATION),
        data=as_texts(state.get("data", {}), "state.data"),
        tokenizer=None if tokenizer is None else as_text(tokenizer, "state.tokenizer"),
    )


def _summary(path: Path) -> dict[str, Any]:
    """A diverged run's metrics are infinite or no number there, which JSON does not have."""
    text = read_text(path, _MOST)
    with contained(path):
        return as_object(json.loads(text, parse_constant=lambda name: None), "summary")


def _status(summary: dict[str, Any], path: Path) -> str:
    status = as_text(summary.get("status"), "summary.status")
    if status not in STATUSES:
        raise CheckpointError(
            f"{path / SUMMARY}: no status is called {shown(status)}", "Was it written by lm?"
        )
    if status == "running" and living_owner(path / "lock") is None:
        return KILLED
    return status


def _newest_state(path: Path) -> dict[str, Any]:
    """The newest checkpoint's state; empty where there is no checkpoint yet."""
    folder = CheckpointFolder(path / "checkpoints")
    if not folder.newest_first():
        return {}
    return read_json_object(folder.find("last") / "state.json", _MOST)


def _test(metrics: dict[str, Any], path: Path) -> Outcome:
    """What training found on the test split, or what `lm evaluate` did if of the same weights.

    Args:
        path: of the latter, which has an interval.
    """
    test = Outcome(
        loss=_number(metrics, "test/loss"),
        perplexity=_number(metrics, "test/perplexity"),
        bits_per_byte=_number(metrics, "test/bits_per_byte"),
        floor=_number(metrics, "test/floor"),
    )
    if not path.exists():
        return test
    found = as_object(read_json_object(path, _MOST).get("test", {}), "evaluation.test")
    loss = _number(found, "loss")
    if loss is None or (test.loss is not None and not math.isclose(loss, test.loss, rel_tol=_SAME)):
        return test
    return Outcome(
        loss=loss,
        perplexity=_number(found, "perplexity"),
        bits_per_byte=_number(found, "bits_per_byte"),
        interval=_interval(found.get("interval")),
        floor=test.floor,
    )


def _interval(ends: Any) -> tuple[float, float] | None:
    if ends is None:
        return None
    numbers = [as_number(end, "interval") for end in as_list(ends, "interval")]
    if len(numbers) != 2:
        raise CheckpointError(
            f"an interval has two ends, got {shown(ends)}", "Evaluate the run again."
        )
    return numbers[0], numbers[1]


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return None if value is None else as_count(value, name)


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return None if value is None else as_number(value, name)
