"""`lm inspect`: gradient flow, gates, matrices, effective context and updates of checkpoints."""

import json
import logging
import os
import re
import sys
from collections import Counter
from pathlib import Path

from lm.commands.evaluate import load_model
from lm.commands.rehearse import rehearsed
from lm.commands.splits import Splits
from lm.config import InspectConfig
from lm.errors import ConfigError
from lm.evaluation.text import Text
from lm.inspection.activations import measure_activations
from lm.inspection.board import write_board
from lm.inspection.clip_advice import advise
from lm.inspection.context import EffectiveContext, measure_context
from lm.inspection.gradient_flow import measure_flow
from lm.inspection.matrices import measure_matrices
from lm.inspection.pictures import PICTURES
from lm.inspection.report import Inspection
from lm.loading import Loaded
from lm.metrics.history import history
from lm.models import RecurrentConfig, RecurrentModel
from lm.run_directory import RunDirectory
from lm.runtime.files import folder_atomically, storage_errors, write_synced

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
    run = models[0].path.parent.parent
    if config.output is not None:
        output = Path(config.output)
    elif len(models) == 1:
        output = run / "inspect" / models[0].path.name
    else:
        output = Path(os.path.commonpath([found.path.parent.parent for found in models]), "inspect")
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
    config = loaded.config.model
    assert isinstance(config, RecurrentConfig)
    sizes = [cell.hidden_size for cell in loaded.model.cells]
    kind = re.sub("Config$", "", type(config).__name__)
    return f"{kind} {len(sizes)}×{'/'.join(map(str, dict.fromkeys(sizes)))}"


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
    flow = measure_flow(
        model, text.store, text.unit, lags=config.lags, positions=config.positions
    )
    found = rehearsed(config, loaded) if config.steps is not None else None
    clip = loaded.config.trainer.clip.norm
    past = history(loaded.path.parent.parent / "metrics.jsonl")
    return Inspection(
        label=label,
        checkpoint=str(loaded.path),
        step=int(loaded.path.name.rpartition("-")[2]),
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


def measured_context(
    config: InspectConfig, model: RecurrentModel, text: Text
) -> EffectiveContext | None:
    """Where it is asked for."""
    if config.context is None:
        return None
    lengths = [1 << k for k in range(config.context.bit_length())]
    return measure_context(model, text.first(config.context_tokens), lengths)


def write(output: Path, inspections: list[Inspection], *, pictures: bool) -> None:
    """Numbers as JSON, pictures as PNG, and both for TensorBoard; an earlier inspection is
    replaced.
    """
    found = [one.to_json() for one in inspections]
    with storage_errors(f"write {output}"), folder_atomically(output) as folder:
        content = json.dumps(found[0] if len(found) == 1 else found, indent=1)
        write_synced(folder / _RESULT, (content + "\n").encode())
        drawn = draw(inspections) if pictures else {}
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}.png")
        write_board(folder, inspections, drawn)
    log.info("written to %s: %s", output, ", ".join([_RESULT, *(f"{name}.png" for name in drawn)]))
