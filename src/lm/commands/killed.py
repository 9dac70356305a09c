"""A run that is killed: `python -m lm.commands.killed CONFIG RUN STEP [override …]`.

For `lm verify-resume interruption=kill`. A process that kills itself is killed at the step that was
asked for; from outside, one would have to hit it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lm.commands.boundary import KILL, Boundary, saved
from lm.commands.train import train
from lm.config import Invocation, TrainConfig, invoking, load_config, parse
from lm.errors import LmError


class _Kill(Boundary):
    """Kills this process at the second occasion, when it has gone on from the checkpoint."""

    passed = False

    def act(self) -> None:
        if self.passed:
            os.kill(os.getpid(), KILL)
        self.passed = True


def main(arguments: Sequence[str]) -> None:
    """Train a saved configuration in a new run directory, until killed."""
    config, run, step, *overrides = arguments
    composed = load_config(Path(config))
    with invoking(Invocation(composed, tuple(overrides), Path(run))):
        train(parse(composed, TrainConfig), _Kill(saved(Path(run), int(step))))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LmError as error:
        sys.exit(f"lm: error: {error}")
