"""A training run of about two seconds that has everything a large one has."""

import json
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from processes import Child

from lm.checkpoint import CheckpointFolder, read, verify
from lm.errors import CheckpointError

TEXT = "the quick brown fox jumps over the lazy dog and the dog does not mind it at all .\n" * 300
STEPS = 120
SAVE_EVERY = 7
RECIPE = [
    "data=text", "data.path=text.txt", "tokenizer=byte", "model.embedding_size=16",
    "model.hidden_size=24", "model.dropout.output=0.2", "trainer.batch_size=4",
    "trainer.window=16", f"trainer.max_steps={STEPS}", "trainer.max_epochs=null",
    "trainer.valid_every=40", f"trainer.save_every={SAVE_EVERY}", "trainer.valid_streams=8",
    "trainer.log_every=1", "trainer.sample_tokens=4", "trainer.test=false",
    "schedule=plateau", "optim=adam", "optim.lr=0.01", "runtime.threads=1", "runtime.device=cpu",
]  # fmt: skip


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Work in `folder`, with the text there."""
    with chdir(folder):
        (folder / "text.txt").write_text(TEXT)
        yield


def recipe(*extra: str) -> list[str]:
    """The run's overrides, with some others or in their place."""
    keys = {item.partition("=")[0] for item in extra}
    return [*(item for item in RECIPE if item.partition("=")[0] not in keys), *extra]


def train(name: str, *extra: str) -> Child:
    """Start the run under a name."""
    return Child.lm("train", *recipe(*extra), f"name={name}", log=Path(f"{name}.log"))


def resume(run: Path, *extra: str) -> Child:
    """Start a process that continues a run."""
    return Child.lm("train", f"resume={run}", *extra, log=Path(f"{run.parent.name}.log"))


def directory(name: str) -> Path | None:
    """The newest run directory of that name, once there is one."""
    return max(Path("runs", name).glob("*/"), key=lambda path: path.name, default=None)


def saved_step(run: Path | None) -> int | None:
    """The step of the newest checkpoint that verifies."""
    for folder in CheckpointFolder(run / "checkpoints").newest_first() if run else ():
        try:
            verify(folder)
        except CheckpointError:
            continue
        return int(folder.name.removeprefix("step-"))
    return None


def reached_step(run: Path | None) -> int:
    """The last step that the run logged, which it does at each."""
    path = run / "metrics.jsonl" if run else None
    if path is None or not path.exists():
        return 0
    lines = path.read_bytes().split(b"\n")[:-1]  # what stands after the last newline was cut off
    return max((json.loads(line)["step"] for line in lines), default=0)


def outcome(run: Path) -> str:
    """SHA-256 of all that a run's last checkpoint holds, but for its wall-clock time."""
    folder = CheckpointFolder(run / "checkpoints")
    checkpoint = read(folder.find("last"))
    state: dict[str, Any] = {**checkpoint.state, "metrics_bytes": 0}
    state["progress"] = {**state["progress"], "seconds": 0}
    whole = sha256(json.dumps(state, sort_keys=True).encode())
    for part in (checkpoint.model, checkpoint.training):
        for name in sorted(part):
            whole.update(name.encode())
            whole.update(part[name].numpy().tobytes())
    return whole.hexdigest()


@cache
def whole_run() -> tuple[str, float]:
    """The outcome of the run that nothing happens to, and how long it takes in seconds."""
    assert train("warm-up").wait() == 0  # prepares the tokens and compiles what is compiled
    started = time.perf_counter()
    child = train("whole")
    assert child.wait() == 0, child.said()
    run = directory("whole")
    assert run is not None
    return outcome(run), time.perf_counter() - started
