"""The best trial of a sweep as an experiment: a file that `lm train experiment=` reads."""

import math
import re
from pathlib import Path
from textwrap import wrap

from omegaconf import DictConfig

from lm.config import Invocation, command_line, config_dir, experiment, key_of
from lm.errors import ConfigError
from lm.run_directory import RunDirectory
from lm.runtime.device import cpu_name
from lm.runtime.files import storage_errors, write_atomically
from lm.sweeping.report import Results

EXPERIMENTS = Path("configs", "experiment")
_MARK = "# Reproduces: trial "
_WIDTH = 98
# Free text is quoted before Hydra reads it; plain words need not be.
_PLAIN = re.compile(r"(?<==)'([\w./-]+)'$")


def check_name_is_free(name: str) -> None:
    """Refuse to write over an experiment that no sweep has written.

    Raises:
        ConfigError: there is one of that name.
        StorageError: the folder of experiments cannot be written.
    """
    RunDirectory.check_place(EXPERIMENTS, "save_as")
    path = EXPERIMENTS / f"{name}.yaml"
    taken = path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")
    if taken or ((config_dir() / "experiment" / path.name).exists() and not path.exists()):
        raise ConfigError(
            f"save_as={name}: there is such an experiment already", "Choose another name."
        )


def write_experiment(path: Path, composed: DictConfig, results: Results, call: Invocation) -> None:
    """Write the best trial's configuration of `lm train`.

    Args:
        path: its stem is the experiment's name.
    """
    header = _header(path.stem, results, call)
    with storage_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, experiment(composed, path.stem, header).encode())


def _header(name: str, results: Results, call: Invocation) -> list[str]:
    best, default = results.best, results.default
    assert best is not None
    assert best.value is not None
    # A database's URL may hold a password.
    said = [_PLAIN.sub(r"\1", text) for text in call.overrides if key_of(text) != "storage"]
    expected = f"best {results.metric} {best.value:.4f}"
    if results.metric.endswith("loss"):
        expected += f", perplexity {math.exp(best.value):.2f}"
    if default is not None and default.value is not None and default is not best:
        expected += f"; without what the sweep found {default.value:.4f}"
    seconds = best.facts.get("seconds")
    cost = f"{seconds:.0f} s on " if seconds is not None else ""
    lines = [
        f"{_MARK[2:]}{best.number} of `{command_line('sweep', said)}`.",
        f"Command:    lm train experiment={name}",
        f"Expected:   {expected}.",
        f"Cost:       {cost}{cpu_name()}.",
    ]
    folded = [wrap(line, _WIDTH, subsequent_indent=" " * 12, break_on_hyphens=False)
              for line in lines]  # fmt: skip
    return [line for entry in folded for line in entry]
