"""A run's whole state to and from a checkpoint, so that resuming continues to the last bit."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from lm.checkpoint import Checkpoint
from lm.checkpoint.format import finite
from lm.checkpoint.tensors import Rows
from lm.errors import CheckpointError, NumericError
from lm.models.base import State
from lm.models.vocabulary_parallel import is_split, own_tensors, split_names
from lm.runtime.untrusted import REMEDY, as_count, as_object
from lm.runtime.untrusted_tensors import check_tensors
from lm.training.identity import compare_identity
from lm.training.progress import Progress
from lm.training.run import Run

_PARTS = ("statistics", "optimizer", "iterate", "outliers", "exchange", "state")


def capture(run: Run) -> Checkpoint:
    """Everything that must survive a stop, as of the last finished step.

    The recurrent state is that of all streams, whichever process has them: all of them take part.
    """
    training = {f"statistics/{name}": t for name, t in run.statistics.sums.items()}
    for name, tensor in run.optimizers.state_tensors().items():
        training[f"optimizer/{name}"] = tensor
    for name, tensor in run.averages.iterates().items():
        training[f"iterate/{name}"] = tensor
    for name, tensor in run.outliers.tensors.items():
        training[f"outliers/{name}"] = tensor
    for k, layer in enumerate(run.state or []):
        for name, tensor in layer.items():
            whole = run.processes.gather(tensor, run.streams.num_streams)
            training[f"state/{k}/{name}"] = whole
    kept, of_all = _unsent(run)
    training |= kept
    model = {**run.model.tensors(), **run.averages.tensors}
    return Checkpoint(
        model=model,
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
        rows=_split_rows(run, {**model, **training}) | of_all,
    )


def _unsent(run: Run) -> tuple[dict[str, Tensor], dict[str, Rows]]:
    """What the exchange between processes has to remember.

    Of compression a factor for all, and an error [P, m, n], one of each process; of local steps the
    outer optimiser's velocity.
    """
    powersgd, size = run.exchange.powersgd, run.processes.size
    if powersgd is None:
        return {f"exchange/velocity/{name}": v for name, v in run.local.velocity.items()}, {}
    tensors = {f"exchange/factor/{name}": factor for name, factor in powersgd.factors.items()}
    rows = {}
    for name, error in powersgd.errors.items():
        tensors[f"exchange/error/{name}"] = error[None]
        collect = partial(run.processes.collect, error[None], size)
        rows[f"exchange/error/{name}"] = Rows(error[None], size, collect)
    return tensors, rows


def _split_rows(run: Run, tensors: Mapping[str, Tensor]) -> dict[str, Rows]:
    """What gives all rows of those tensors of which this process has its own."""
    split, count = split_names(run.model), run.model.vocab_size
    return {
        name: Rows(own.detach(), count, partial(run.processes.collect, own.detach(), count))
        for name, own in tensors.items()
        if own.ndim and is_split(name, split)
    }


def write(run: Run, *, best: bool) -> None:
    """Write a checkpoint of this very step, or take part in it.

    Raises:
        NumericError: a weight is not finite.
        StorageError: disk full or read-only.
    """
    checkpoint = capture(run)
    if checkpoint.rows:  # what another process has is not seen by the one that writes
        bad = not all(map(finite, checkpoint.model.values()))
        if run.processes.largest([float(bad)])[0]:
            raise NumericError(
                f"refused to save step {run.progress.step}: a weight is not finite",
                "Lower optim.lr or set trainer.clip.norm, and resume from the last checkpoint.",
            )
    if run.processes.first:
        run.saver.save(run.progress.step, checkpoint, best=best)
    else:
        checkpoint.take_part()


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Continue from a checkpoint of the same run.

    Raises:
        CheckpointError: model, optimiser or data are not those of the checkpoint, or a part of
            it is malformed.
    """
    state = checkpoint.state
    if "optimizer" not in state:
        raise CheckpointError(
            "these weights were imported, there is no training to resume",
            "Start a run from them with init_from=.",
        )
    compare_identity(run.identity, state)
    progress = _progress(run, state)
    parts = _parts(own_tensors(run.model, checkpoint.training))
    run.model.load_tensors(own_tensors(run.model, checkpoint.model))
    averaging = as_object(state.get("averaging"), "state.averaging")
    run.averages.load(averaging, parts["iterate"])
    run.outliers.load(parts["outliers"])
    optimizer = as_object(state["optimizer"], "state.optimizer")
    run.optimizers.load_state(parts["optimizer"], optimizer)
    run.schedule.load(as_object(state.get("schedule"), "state.schedule"))
    run.statistics.load(parts["statistics"])
    kept = _by_kind(parts["exchange"])
    if run.exchange.powersgd is not None:
        run.exchange.powersgd.load(kept["factor"], kept["error"])
    run.local.load(kept["velocity"])
    run.state = _recurrent_state(run, progress, parts["state"])
    run.progress = progress


def _by_kind(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What `_unsent` gave, by kind and name."""
    kinds: dict[str, dict[str, Tensor]] = {"factor": {}, "error": {}, "velocity": {}}
    for whole, tensor in tensors.items():
        kind, _, name = whole.partition("/")
        if kind not in kinds:
            raise CheckpointError(f"the checkpoint holds the unknown exchange/{whole}", REMEDY)
        kinds[kind][name] = tensor
    return kinds


def _progress(run: Run, state: dict[str, Any]) -> Progress:
    progress = Progress.from_json(as_object(state.get("progress"), "state.progress"))
    as_count(state.get("metrics_bytes"), "state.metrics_bytes")
    if progress.position >= run.streams.length:
        raise CheckpointError(
            f"the checkpoint stands at step {progress.position:,} of its epoch's streams, which"
            f" have {run.streams.length:,}",
            REMEDY,
        )
    return progress


def _parts(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors beside the weights by what they belong to."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for whole, tensor in tensors.items():
        part, _, name = whole.partition("/")
        if part not in parts:
            raise CheckpointError(f"the checkpoint holds the unknown tensor {whole}", REMEDY)
        parts[part][name] = tensor
    return parts


def _recurrent_state(run: Run, progress: Progress, tensors: dict[str, Tensor]) -> State | None:
    """That of our own streams; None at the start of an epoch, when nothing was saved."""
    own = run.model.initial_state(run.streams.num_streams) if progress.position else []
    named = {f"{k}/{name}": t for k, layer in enumerate(own) for name, t in layer.items()}
    check_tensors(tensors, named, "state")
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"the checkpoint's state/{name} is not finite", REMEDY)
    if not progress.position:
        return None
    device, streams = run.model.device, run.processes.share(run.streams.num_streams)
    # A copy is aligned as every tensor of torch's own; one that lies in the file's buffer is not,
    # and MKL's last bits depend on it.
    return [
        {name: tensors[f"{k}/{name}"][streams].to(device, copy=True) for name in layer}
        for k, layer in enumerate(own)
    ]
