"""A run from its parts."""

from contextlib import ExitStack
from pathlib import Path

from torch import nn

from lm.commands.start import Start
from lm.commands.together import check_split, check_streams
from lm.data.streams import Streams
from lm.errors import ConfigError
from lm.models import RecurrentModel
from lm.models.language_model import part_of
from lm.optim.groups import is_prefix
from lm.run_directory import RunDirectory
from lm.runtime.device import machine
from lm.training.identity import fingerprints
from lm.training.loop import Trainer
from lm.training.progress import Limits
from lm.training.signals import StopFlag
from lm.training.windows import Windows


def assemble(start: Start, held: ExitStack, stop: StopFlag) -> Trainer:
    """Everything a run consists of; its directory comes last, when nothing can be refused."""
    config, compute, processes = start.config, start.compute, start.processes
    check_streams(config, processes)
    if start.splits:
        check_split(config)
    prepared = start.load_data()
    streams = Streams.for_training(
        prepared.stores["train"],
        config.trainer.batch_size,
        config.trainer.window,
        config.data.unit,
        label=start.corpus.describe("train"),
        own=processes.share(config.trainer.batch_size),
    )
    start.settle_sizes(prepared.tokenizer.vocab_size)
    model = start.build_model(prepared.tokenizer, prepared.stores["train"])
    assert isinstance(model, RecurrentModel)
    model.compute = compute
    model = model.to(compute.device)
    optimizers = config.optim.build(trainable(model, config.freeze), lr_scales=config.lr_scales)
    windows = Windows(streams, config.trainer.random_window, config.seed)
    limits = Limits.of(config.trainer, windows)
    schedule = config.schedule.build(total_steps=limits.total_steps, epoch_of=windows.epoch_of)
    weights = sum(p.itemsize * model.size_of(n, p) for n, p in model.named_parameters())
    RunDirectory.check_room(Path(config.runs), weights, config.trainer.keep)
    directory = start.directory or start.create_directory(held)
    return Trainer(
        config=config.trainer,
        seed=config.seed,
        tokenizer=prepared.tokenizer,
        prompt=start.prompt,
        model=model,
        optimizers=optimizers,
        schedule=schedule,
        streams=streams,
        windows=windows,
        valid=prepared.stores["valid"],
        test=prepared.stores["test"],
        limits=limits,
        directory=directory,
        config_text=start.config_text,
        identity={
            "machine": {
                **machine(compute.device),
                "precision": compute.precision.value,
                "kernels": compute.kernels.value,
                "processes": processes.size,
            },
            "data": {name: store.fingerprint for name, store in prepared.stores.items()},
            **fingerprints(config.model, prepared.tokenizer),
        },
        stop=stop,
        processes=processes,
    )


def trainable(model: RecurrentModel, freeze: list[str]) -> dict[str, nn.Parameter]:
    """Freeze the parameters below the given name prefixes, and give the others.

    Raises:
        ConfigError: a prefix matches nothing, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    for prefix in freeze:
        frozen = [name for name in parameters if is_prefix(prefix, name)]
        if not frozen:
            parts = ", ".join(sorted({part_of(name) for name in parameters}))
            raise ConfigError(f"freeze: no parameter begins with {prefix!r}", f"Parts: {parts}.")
        for name in frozen:
            parameters[name].requires_grad_(False)
    left = {name: p for name, p in parameters.items() if p.requires_grad}
    if all(part_of(name) == "initial" for name in left):  # trained in an epoch's first step only
        raise ConfigError(f"freeze={freeze} leaves nothing to train", "Freeze less.")
    return left
