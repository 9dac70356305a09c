"""The row of random command lines: I2."""

import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

import composing
import torch
from fault_plan import Figure, Finding, Trial, row
from pytest import MonkeyPatch  # noqa: PT013
from random_configs import command_line
from rows_config import answer_fault, shown
from stranger import TEXT, copied, good_run
from trials import in_child

from lm.cli import main
from lm.commands import import_, reproduce, verify_resume
from lm.config import unknown
from lm.errors import DataError
from lm.models import RecurrentConfig, RecurrentModel
from lm.training.loop import Trainer
from lm.training.progress import Limits

SECONDS = 30.0  # of the processor: what was asked for may be done, such as tuning two methods
TRAINED = 0.2  # of the runs that get as far
LARGEST = 100_000  # parameters of a model that gets its weights; tokens that are evaluated


@row(
    "I2",
    "random command lines: sound, on the border, of other types, beyond Hydra's grammar",
    "no crash, no hang, a known exit code; two lines where refused; exit 2 leaves nothing",
    Figure.input,
    few=20,
    full=10_000,
)
def random_configurations(trial: Trial) -> Iterator[Finding]:
    seed = trial.draws.randrange(1 << 30)
    given = (trial.folder, good_run(), seed, trial.times)
    yield from in_child(trial.folder, fuzz_cases, *given, seconds=SECONDS)


def fuzz_cases(
    folder: Path, good: Path, seed: int, times: int
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """So many command lines."""
    place = folder / "place"
    place.mkdir()
    os.chdir(place)
    os.environ["HOME"] = str(place / "home")
    (place / "text.txt").write_text(TEXT)
    copied(good, place / "run")
    small_work(MonkeyPatch())
    for k in range(times):
        arguments = command_line(random.Random(f"{seed} {k}"))
        yield f"case {seed} {k}: {shown(arguments)}", partial(attempt, place, arguments)


def attempt(place: Path, arguments: list[str]) -> str | None:
    """What is wrong with how a command line was answered."""
    before = set(place.iterdir())
    said = StringIO()
    with redirect_stderr(said), redirect_stdout(StringIO()):
        code = main(arguments)
    os.chdir(place)
    for name in (None, "hydra"):  # of hydra.verbose
        logging.getLogger(name).setLevel(logging.WARNING)
    left = sorted(path.name for path in set(place.iterdir()) - before)
    for name in left:
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    fault = answer_fault(code, said.getvalue())
    if fault is None and code == 2 and left and not any("cache" in text for text in arguments):
        fault = f"left {left}"
    return None if fault is None else f"{fault}\n{said.getvalue()[-1500:]}"


def small_work(patch: MonkeyPatch) -> None:
    """In this process runs end at their second step, and there is no memory for large models."""
    whole_fit, whole_build = Trainer.fit, RecurrentConfig.build

    def fit(self: Trainer) -> str:
        chosen = random.Random(self.config_text).random() < TRAINED  # of itself, not of its turn
        if not chosen or len(self.valid) > LARGEST:
            return "not trained"
        self.limits = Limits(self.limits.config, 2, self.windows.tokens_in(2))
        return whole_fit(self)

    def build(self: RecurrentConfig, vocab_size: int, **rest: Any) -> RecurrentModel:
        with torch.device("meta"):
            model = self.solved(vocab_size).assemble(vocab_size)
        if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
            raise MemoryError
        return whole_build(self, vocab_size, **rest)

    def offline(self: Any) -> None:
        raise DataError("no network", "Name a local folder.")

    patch.setattr(Trainer, "fit", fit)
    patch.setattr(RecurrentConfig, "build", build)
    patch.setattr(torch, "set_num_threads", lambda number: None)
    patch.setattr("lm.data.download._Transfer.run", offline)
    patch.setattr("lm.evaluation.search._MOST_TRIALS", 2)
    for verb in (import_, reproduce, verify_resume):
        patch.setattr(verb, "run", lambda config: 0.0)
    composing.install(patch)
    patch.setattr(unknown, "_names_of", cache(unknown._names_of))
