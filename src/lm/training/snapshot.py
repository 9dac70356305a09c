"""A run's whole state to and from a checkpoint, so that resuming continues to the last bit."""

import logging

from torch import Tensor

from lm.checkpoint import Checkpoint
from lm.errors import CheckpointError
from lm.models import RecurrentModel
from lm.models.base import State
from lm.training.progress import Progress
from lm.training.run import Run

log = logging.getLogger(__name__)


def capture(run: Run) -> Checkpoint:
    """Everything that must survive a stop, as of the last finished step."""
    training = {f"statistics/{name}": t for name, t in run.statistics.sums.items()}
    for name, tensor in run.optimizers.state_tensors().items():
        training[f"optimizer/{name}"] = tensor
    for name, tensor in run.averages.iterates().items():
        training[f"iterate/{name}"] = tensor
    for name, tensor in run.outliers.tensors.items():
        training[f"outliers/{name}"] = tensor
    for k, layer in enumerate(run.state or []):
        for name, tensor in layer.items():
            training[f"state/{k}/{name}"] = tensor
    return Checkpoint(
        model={**run.model.tensors(), **run.averages.tensors},
        training=training,
        state={
            "progress": run.progress.to_json(),
            "schedule": run.schedule.state(),
            "optimizer": run.optimizers.state_scalars(),
            "averaging": run.averages.state(),
            "metrics_bytes": run.writer.flush(),
            "compute": run.model.compute.to_json(),
            **run.identity,
        },
        config=run.config_text,
        tokenizer=run.tokenizer.to_json(),
    )


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Continue from a checkpoint of the same run.

    Raises:
        CheckpointError: model, optimiser or data are not those of the checkpoint.
    """
    if "optimizer" not in checkpoint.state:
        raise CheckpointError(
            "these weights were imported, there is no training to resume",
            "Start a run from them with init_from=.",
        )
    compare_identity(run.identity, checkpoint.state)
    run.model.load_tensors(checkpoint.model)
    tensors = checkpoint.training
    run.averages.load(checkpoint.state["averaging"], _below("iterate/", tensors))
    run.outliers.load(_below("outliers/", tensors))
    run.optimizers.load_state(_below("optimizer/", tensors), checkpoint.state["optimizer"])
    run.schedule.load(checkpoint.state["schedule"])
    run.statistics.load(_below("statistics/", tensors))
    run.state = _recurrent_state(run.model, _below("state/", tensors))
    run.progress = Progress(**checkpoint.state["progress"])


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _recurrent_state(model: RecurrentModel, tensors: dict[str, Tensor]) -> State | None:
    """None at the start of an epoch, when nothing was saved."""
    if not tensors:
        return None
    device = model.device
    # A copy is aligned as every tensor of torch's own; one that lies in the file's buffer is not,
    # and MKL's last bits depend on it.
    return [
        {name: tensors[f"{k}/{name}"].to(device, copy=True) for name in cell.state_sizes}
        for k, cell in enumerate(model.cells)
    ]


def compare_identity(now: dict[str, object], saved: dict[str, object]) -> None:
    """The data must be the same; another machine is allowed and said aloud.

    Raises:
        CheckpointError: a split's tokens differ from those that the run was trained on.
    """
    if now["data"] != saved.get("data"):
        raise CheckpointError(
            "the data differ from those of the checkpoint (fingerprint of the tokens)",
            "Restore the data, or start a new run with init_from=.",
        )
    old, new = saved.get("machine"), now["machine"]
    assert isinstance(new, dict)
    if isinstance(old, dict) and old != new:
        differs = [f"{k} {old.get(k)} → {v}" for k, v in new.items() if old.get(k) != v]
        log.warning("resumed, not bit-exact: %s", ", ".join(differs))
