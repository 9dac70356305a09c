"""A stranger's checkpoint: a good one, changed in every way, its manifest made to agree."""

import atexit
import hashlib
import json
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from processes import Child

TEXT = "the quick brown fox jumps over the lazy dog and the dog does not mind it at all .\n" * 60
RECIPE = [
    "data=text", "tokenizer=word", "model.embedding_size=6", "model.hidden_size=8",
    "trainer.batch_size=4", "trainer.window=8", "trainer.max_steps=10", "trainer.max_epochs=null",
    "trainer.valid_every=10", "trainer.keep=1", "trainer.valid_streams=2",
    "trainer.sample_tokens=0", "trainer.test=false", "trainer.averaging.kind=ema",
    "trainer.clip.outlier.sigmas=6", "trainer.clip.outlier.history=4", "schedule=plateau",
    "optim=adam", "runtime.threads=1", "runtime.device=cpu", "runtime.kernels=torch",
]  # fmt: skip
FILES = ("model.safetensors", "training.safetensors", "state.json", "config.yaml", "tokenizer.json")
MANIFEST = "manifest.json"


@cache
def good_run() -> Path:
    """A finished run with one checkpoint, which stands in the middle of an epoch."""
    home = Path(tempfile.mkdtemp(prefix="lm-stranger-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "text.txt").write_text(TEXT)
    places = [f"data.path={home / 'text.txt'}", f"runs={home / 'runs'}", "name=good"]
    child = Child.lm("train", *RECIPE, *places, log=home / "log")
    assert child.wait() == 0, child.said()
    (run,) = (home / "runs" / "good").iterdir()
    return run


def checkpoint_of(run: Path) -> Path:
    """The one checkpoint of a run."""
    (folder,) = (run / "checkpoints").glob("step-*")
    return folder


def copied(run: Path, target: Path) -> Path:
    """A copy of a run to change, in the place of the one before."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run, target, symlinks=True, ignore=shutil.ignore_patterns("tensorboard"))
    return target


def seal(checkpoint: Path) -> None:
    """Make the manifest agree with the files, as whoever changed them can."""
    path = checkpoint / MANIFEST
    files = {}
    for name in FILES:
        content = (checkpoint / name).read_bytes() if (checkpoint / name).is_file() else b""
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    path.unlink(missing_ok=True)
    path.write_text(json.dumps({"format": 1, "files": files}, indent=1))


def read_header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its data."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: Any, data: bytes) -> bytes:
    """The inverse of `read_header`."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
