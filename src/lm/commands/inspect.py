"""`lm inspect`: gradient flow, gates, matrices, effective context and updates of checkpoints."""

import json
import logging
import os
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm.commands.evaluate import load_model
from lm.commands.rehearse import rehearsed
from lm.commands.splits import Splits
from lm.config import InspectConfig
from lm.errors import ConfigError
from lm.evaluation.text import Text
from lm.inspection.activations import measure_activations
from lm.inspection.board import write_board
from lm.inspection.canvas import pixels, save
from lm.inspection.clip_advice import advise
from lm.inspection.context import EffectiveContext, measure_context
from lm.inspection.gradient_flow import measure_flow
from lm.inspection.matrices import measure_matrices
from lm.inspection.pictures import PICTURES
from lm.inspection.report import Inspection
from lm.loading import Loaded
from lm.metrics.history import gradient_norms
from lm.models import RecurrentModel
from lm.run_directory import RunDirectory
from lm.runtime.files import folder_atomically, storage_errors, sync, write_atomically

log = logging.getLogger(__name__)

# Streams that gates and states are watched on.
_PLACES = 32
_RESULT = "inspection.json"


def run(config: InspectConfig) -> None:
    """Print what each checkpoint is like, and write numbers and pictures of all side by side."""
    compute = config.runtime.build()
    models = [load_model(path, compute, config.checkpoint) for path in config.run]
    for path, loaded in zip(config.run, models, strict=True):
        if not isinstance(loaded.model, RecurrentModel):
            raise ConfigError(
                f"run={path} is an n-gram model: it has no state and no gradient to look into",
                "Give a recurrent model's run.",
            )
    output = place(config, models)
    RunDirectory.check_place(output, "output")
    inspections = []
    for loaded, label in zip(models, labels(models), strict=True):
        inspections.append(inspect(config, loaded, label))
        sys.stdout.write(inspections[-1].describe() + "\n")
        sys.stdout.flush()
    write(output, inspections, pictures=config.pictures)


def place(config: InspectConfig, models: list[Loaded]) -> Path:
    """Where the results go.

    Raises:
        ConfigError: something else is there.
    """
    if config.output is not None:
        output = Path(config.output)
    elif len(models) == 1:
        output = models[0].path.parent.parent / "inspect" / models[0].path.name
    else:
        runs = [loaded.path.absolute().parent.parent for loaded in models]
        output = Path(os.path.commonpath(runs), "inspect", "together")
        if output.is_relative_to(Path.cwd()):
            output = output.relative_to(Path.cwd())
    if output.exists() and not (output / _RESULT).is_file():
        raise ConfigError(
            f"{output} is there already, and is none of lm inspect's", "Set output=<a new folder>."
        )
    return output


def labels(models: list[Loaded]) -> list[str]:
    """What the models are, and where that does not tell them apart, which run."""
    kinds = [_kind(loaded) for loaded in models]
    often = Counter(kinds)
    return [
        kind if often[kind] == 1 else f"{kind} {_run_name(loaded.path)}"
        for kind, loaded in zip(kinds, models, strict=True)
    ]


def _kind(loaded: Loaded) -> str:
    model = loaded.model
    assert isinstance(model, RecurrentModel)
    sizes = "/".join(str(size) for size in dict.fromkeys(c.hidden_size for c in model.cells))
    return f"{type(model.cells[0]).__name__} {len(model.cells)}x{sizes}"


def _run_name(checkpoint: Path) -> str:
    """The last characters of a run's name, which are its own, and the checkpoint's step."""
    return f"{checkpoint.parent.parent.name[-6:]} {checkpoint.name}"


def inspect(config: InspectConfig, loaded: Loaded, label: str) -> Inspection:
    """Everything that is measured of one checkpoint."""
    model = loaded.model
    assert isinstance(model, RecurrentModel)
    splits = Splits.of(config, loaded)
    text = splits(config.split)
    log.info("inspecting %s …", loaded.path)
    flow = measure_flow(model, text.store, text.unit, lags=config.lags, positions=config.positions)
    found = rehearsed(config, loaded) if config.steps is not None else None
    clip = loaded.config.trainer.clip.norm
    past = gradient_norms(loaded.path.parent.parent / "metrics.jsonl")
    return Inspection(
        label=label,
        checkpoint=str(loaded.path),
        step=step_of(loaded.path),
        text=f"{config.split} of {splits.corpus.name}",
        window=loaded.config.trainer.window,
        flow=flow,
        activations=measure_activations(
            model, text.store, text.unit, steps=config.lags, places=_PLACES
        ),
        matrices=measure_matrices(model),
        context=measured_context(config, model, text),
        lr=None if found is None else found.lr,
        update_ratios=None if found is None else found.update_ratios,
        clip=advise(found.gradient_norms, clip, past) if found and found.gradient_norms else None,
    )


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name tells; 0 where it was given another."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def measured_context(
    config: InspectConfig, model: RecurrentModel, text: Text
) -> EffectiveContext | None:
    """Where it is asked for."""
    if config.context is None:
        return None
    lengths = [1 << k for k in range(config.context.bit_length())]
    return measure_context(model, text.first(config.context_tokens), lengths)


def draw(inspections: list[Inspection]) -> dict[str, NDArray[np.uint8]]:
    """The pictures by name; none, and why, where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        log.warning("no pictures: matplotlib is not installed (pip install matplotlib)")
        return {}
    drawn = {name: picture(inspections) for name, picture in PICTURES.items()}
    return {name: pixels(figure) for name, figure in drawn.items() if figure is not None}


def write(output: Path, inspections: list[Inspection], *, pictures: bool) -> None:
    """Numbers as JSON, pictures as PNG, and both for TensorBoard; an earlier inspection is
    replaced.
    """
    found = [one.to_json() for one in inspections]
    with storage_errors(f"write {output}"), folder_atomically(output) as folder:
        content = json.dumps(found[0] if len(found) == 1 else found, indent=1)
        write_atomically(folder / _RESULT, (content + "\n").encode())
        drawn = draw(inspections) if pictures else {}
        for name, image in drawn.items():
            path = folder / f"{name}.png"
            save(path, image)
            sync(path)
        write_board(folder, inspections, drawn)
    log.info("written to %s: %s", output, ", ".join([_RESULT, *(f"{name}.png" for name in drawn)]))
