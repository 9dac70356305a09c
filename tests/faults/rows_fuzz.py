"""The row of random damage that the manifest agrees with: X5."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fault_plan import Figure, Finding, Trial, row
from mutations import STRUCTURAL, of_bytes
from stranger import MANIFEST, checkpoint_of, copied, good_run, seal
from trials import in_child

import lm
from lm.commands.assembly import assemble
from lm.commands.begin import begin
from lm.config import Invocation, TrainConfig, compose, parse, prepare
from lm.errors import CheckpointError, LmError
from lm.training.loop import Trainer
from lm.training.signals import StopFlag
from lm.training.snapshot import restore

# What only resuming reads is read by it alone, and what both read by both in turn.
FILES = (
    "state.json", "state.json", "training.safetensors", "training.safetensors", "config.yaml",
    "config.yaml", "tokenizer.json", "model.safetensors", MANIFEST, "../last",
)  # fmt: skip


@row(
    "X5",
    "random bytes and values in each file of a checkpoint, its manifest made to agree",
    "a CheckpointError or a run that goes on; bounded memory and time",
    Figure.corruption,
    few=32,
    full=10_000,
)
def fuzzed_checkpoints(trial: Trial) -> Iterator[Finding]:
    seed = trial.draws.randrange(1 << 30)
    yield from in_child(trial.folder, fuzz_cases, trial.folder, good_run(), seed, trial.times)


def fuzz_cases(
    folder: Path, good: Path, seed: int, times: int
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """So many damaged checkpoints, loaded or resumed."""
    os.chdir(folder)
    target = Resumed(copied(good, folder / "run"))
    originals = {name: (checkpoint_of(target.run) / name).read_bytes() for name in FILES}
    assert target.load() == target.resume() == "went on"
    for k in range(times):
        draws = random.Random(f"{seed} {k}")
        name, way = draws.choice(FILES), draws.choice(("load", "resume"))
        if name in ("state.json", "training.safetensors"):
            way = "resume"
        mutate = of_bytes if draws.random() < 0.3 else STRUCTURAL.get(name, of_bytes)
        content = mutate(originals[name], draws)
        what = f"case {seed} {k}: {mutate.__name__} in {name}, {way}"
        yield what, partial(target.attack, originals, name, content, way)


class Resumed:
    """A run that is loaded, or resumed as `lm train resume=` does, again and again."""

    def __init__(self, run: Path) -> None:
        self.run = run
        override = prepare(f"resume={run}")
        composed = compose("train", [override])
        self.config = parse(composed, TrainConfig)
        self.call = Invocation(composed, (override,))
        with ExitStack() as held:
            self.trainer: Trainer = assemble(begin(self.config, self.call, held), held, StopFlag())

    def attack(
        self, originals: dict[str, bytes], name: str, content: bytes, way: str
    ) -> str | None:
        """What is wrong with what happened."""
        checkpoint = checkpoint_of(self.run)
        for other, good in originals.items():
            (checkpoint / other).write_bytes(good)
        (checkpoint / name).write_bytes(content)
        if name != MANIFEST:
            seal(checkpoint)
        try:
            self.load() if way == "load" else self.resume()
        except CheckpointError as error:
            return None if error.remedy else f"no remedy: {error.cause}"
        except LmError as error:
            # A configuration may rightly name a device or a corpus that is not here; and weights
            # that are finite may overflow.
            expected = error.code == 5 or (name == "config.yaml" and way == "resume")
            return None if expected else f"exit {error.code}: {error.cause}"
        return None

    def load(self) -> str:
        """`lm.load`, and a use of what it gave."""
        loaded = lm.load(self.run)
        loaded.score("the dog and the fox")
        loaded.generate("the", num_tokens=2)
        return "went on"

    def resume(self) -> str:
        """`lm train resume=` up to its first step and its log."""
        with ExitStack() as held:
            start = begin(self.config, self.call, held)
            assert start.resumed is not None
            trainer = self.trainer
            restore(trainer, start.resumed)
            step = trainer.progress.step
            window = trainer.streams.window(trainer.progress.position)
            trainer.train_step(
                window, trainer.state, step=step, lr_multiplier=trainer.schedule.multiplier(step)
            )
            trainer.statistics.read()
            return "went on"
