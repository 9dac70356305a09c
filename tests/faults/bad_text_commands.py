"""Command lines of `lm` on small texts, in the working directory."""

from functools import cache
from pathlib import Path

from lm.cli import main

GOOD = b"the quick brown fox jumps over the lazy dog.\n" * 100
_LIMITS = ["runtime.device=cpu", "runtime.threads=1", "runtime.kernels=torch"]
_RECIPE = [
    "data=text", "model.embedding_size=4", "model.hidden_size=4", "trainer.batch_size=2",
    "trainer.window=8", "trainer.max_steps=2", "trainer.max_epochs=null", "trainer.bar=false",
    "trainer.sample_tokens=0", "trainer.test=false", "schedule=constant", *_LIMITS,
]  # fmt: skip


def write(name: str, content: bytes) -> str:
    """Make a file, and give its name."""
    Path(name).write_bytes(content)
    return name


def train(path: str | None, *extra: str) -> list[str]:
    """`lm train` of two steps."""
    return ["train", *_RECIPE, *([] if path is None else [f"data.path={path}"]), *extra]


def evaluate(kind: str) -> list[str]:
    """`lm evaluate` of a run that was trained on good text with a tokenizer of that kind."""
    return ["evaluate", f"run={run_of(kind)}", *_LIMITS]


def generate(kind: str, prompt: str) -> list[str]:
    """`lm generate` from such a run."""
    return ["generate", f"run={run_of(kind)}", f"prompt={prompt}", "num_tokens=3", *_LIMITS]


def resume(kind: str) -> list[str]:
    """`lm train resume=` of such a run."""
    return ["train", f"resume={run_of(kind)}", "trainer.max_steps=4"]


@cache
def run_of(kind: str) -> Path:
    """A run on good text."""
    write("good.txt", GOOD)
    assert main(train("good.txt", f"tokenizer={kind}", f"name={kind}")) == 0
    (run,) = Path("runs", kind).iterdir()
    return run
