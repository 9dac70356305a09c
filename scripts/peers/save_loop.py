"""Saves a model of ordinary size again and again, as a program of the comparison saves.

`python save_loop.py WHICH MODEL.PY TIMES`, in the folder that the checkpoints go to. The model
is the default of pytorch/examples: two layers of 200, ten thousand words, 17 MB.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SIZE, WORDS = 200, 10_000
_SECONDS = 60.0  # so that it ends if nobody kills it


def examples() -> Callable[[int], Any]:
    from model import RNNModel  # type: ignore[import-not-found]

    model = RNNModel("LSTM", WORDS, SIZE, SIZE, 2)

    def save(step: int) -> None:
        with open("model.pt", "wb") as f:  # noqa: PTH123  (to the letter)
            torch.save(model, f)

    return save


def lightning() -> Callable[[int], Any]:
    from lightning_lm import RecurrentLM, parser, trainer  # type: ignore[import-not-found]

    model = RecurrentLM(WORDS, SIZE, 0.2, 5.0)
    runner = trainer(parser().parse_args(["fit", "--data", ".", "--out", "."]))
    runner.strategy.connect(model)

    def save(step: int) -> None:  # and drop the one before, in the order of ModelCheckpoint
        runner.save_checkpoint(f"epoch=0-step={step}.ckpt")
        runner.strategy.remove_checkpoint(f"epoch=0-step={step - 1}.ckpt")

    return save


def lm() -> Callable[[int], Any]:
    from lm.checkpoint import Checkpoint, CheckpointFolder
    from lm.models.lstm import LSTMConfig

    config = LSTMConfig(embedding_size=SIZE, hidden_size=SIZE, num_layers=2)
    checkpoint = Checkpoint(config.build(WORDS, seed=1).state_dict(), {}, {}, "", {})
    folder = CheckpointFolder(Path("runs/loop/run/checkpoints"))
    folder.open_for_writing()
    return lambda step: folder.save(step, checkpoint, best=False, keep=2)


WAYS = {"examples": examples, "lightning": lightning, "lightning_hooks": lightning, "lm": lm}

if __name__ == "__main__":
    which, script, times = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    save, limit = WAYS[which](), time.monotonic() + _SECONDS
    for step in range(1, int(times) + 1):
        save(step)
        print(step, flush=True)
        if time.monotonic() > limit:
            break
