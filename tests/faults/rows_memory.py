"""The row of memory that runs out: N6."""

from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from answers import ERROR, cause_and_remedy
from fault_plan import Figure, Finding, Trial, row
from processes import Child, run_lm
from small_run import RECIPE, directory, resume, saved_step, workplace
from stranger import good_run
from trials import limit_memory

from lm.checkpoint import CheckpointFolder, read
from lm.models import RecurrentModel
from lm.training.loop import Trainer
from lm.training.step import TrainStep

SPARE = 64 << 20
STEPS, SAVE_EVERY = 24, 6
SHORT = [f"trainer.max_steps={STEPS}", f"trainer.save_every={SAVE_EVERY}", "trainer.valid_every=12"]
# What a remedy has to name, by verb.
TO_LOWER = {
    "train": ("trainer.batch_size", "trainer.window", "model.hidden_size", "model.head=adaptive"),
    "evaluate": ("window", "streams"),
    "generate": ("num_samples",),
}


def _by_torch() -> None:
    """What the system refuses: an address space with no room for it."""
    limit_memory(SPARE)
    torch.empty(2 * SPARE, dtype=torch.uint8)


def _by_python() -> None:
    """The same, asked for by Python."""
    limit_memory(SPARE)
    bytearray(2 * SPARE)


def _by_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")


WAYS: dict[str, Callable[[], None]] = {"torch": _by_torch, "python": _by_python, "cuda": _by_cuda}
# Which call has no memory, and of which verb.
PLACES: dict[str, tuple[str, type, str]] = {
    "a training step": ("train", TrainStep, "_accumulate"),
    "a validation": ("train", Trainer, "_validate"),
    "a forward pass": ("train", RecurrentModel, "forward"),
    "a test": ("evaluate", RecurrentModel, "forward"),
    "a sample": ("generate", RecurrentModel, "features"),
}


def starved(arguments: list[str], place: str, way: str, call: int) -> int:
    """`lm …` in a process whose memory ends in the n-th call of a place."""
    _, owner, name = PLACES[place]
    whole, calls = getattr(owner, name), 0

    def starving(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            WAYS[way]()
        return whole(*given, **named)

    setattr(owner, name, starving)
    return run_lm(arguments)


@row(
    "N6",
    "memory that ends in a step, a validation, a forward pass, a test or a sample",
    "exit 7 in two lines that name what to lower; the last checkpoint is kept, and goes on",
    Figure.fault,
    few=2,
    full=60,
)
def out_of_memory(trial: Trial) -> Iterator[Finding]:
    cases = list(product(PLACES, WAYS))
    trial.draws.shuffle(cases)
    trained = good_run()
    with workplace(trial.folder):
        for k, (place, way) in enumerate(islice(cases * trial.times, trial.times)):
            if PLACES[place][0] == "train":
                latest = 2 if place == "a validation" else STEPS - 4
                yield _training(f"run-{k}", place, way, trial.draws.randint(1, latest))
            else:
                yield _use(trained, k, place, way)


def _training(name: str, place: str, way: str, call: int) -> Finding:
    keys = {text.partition("=")[0] for text in SHORT}
    recipe = [text for text in RECIPE if text.partition("=")[0] not in keys]
    arguments = ["train", *recipe, *SHORT, f"name={name}"]
    child = Child(Path(f"{name}.log"), starved, arguments, place, way, call)
    fault = _answer_fault(child.wait(), child.said(), "train")
    run = directory(name)
    assert run is not None
    kept = saved_step(run)
    if fault is None and kept is not None and (resume(run).wait() or saved_step(run) != STEPS):
        fault = f"does not go on from step {kept}"
    if (
        fault is None
        and place == "a training step"
        and (kept or 0) < (call - 1) // SAVE_EVERY * SAVE_EVERY
    ):
        fault = f"step {kept} is the last that was kept"
    return Finding(fault is None, f"{way} in call {call} of {place}: {fault or 'answered'}")


def _use(run: Path, k: int, place: str, way: str) -> Finding:
    verb = PLACES[place][0]
    arguments = [
        verb,
        f"run={run}",
        *(["splits=[valid]"] if verb == "evaluate" else ["prompt=the"]),
    ]
    child = Child(Path(f"use-{k}.log"), starved, arguments, place, way, 1)
    fault = _answer_fault(child.wait(), child.said(), verb)
    read(CheckpointFolder(run / "checkpoints").find("last"))
    return Finding(fault is None, f"{way} in {place}: {fault or 'answered'}")


def _answer_fault(code: int, said: str, verb: str) -> str | None:
    """What is wrong with how the end of the memory was answered."""
    cause, remedy = cause_and_remedy(said) or ("", "")
    out = code == 7 and cause.startswith(f"{ERROR}out of memory") and said.count(ERROR) == 1
    if out and all(name in remedy for name in TO_LOWER[verb]):
        return None
    return f"exit {code}, {said[-1500:]}"
