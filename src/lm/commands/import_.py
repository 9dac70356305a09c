"""`lm import`: weights of a pytorch/examples-style model into a run directory of ours.

The one place that reads a foreign checkpoint, and with `weights_only`: nothing in it is executed.
"""

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lm.checkpoint import Checkpoint
from lm.config import ImportConfig, TrainConfig, compose, dump, invocation, parse, portable_config
from lm.config.registry import name_of
from lm.data.tokenizers import Tokenizer, tokenizer_from_json
from lm.data.tokenizers.base import FORMAT
from lm.errors import CheckpointError, ConfigError, DataError
from lm.models import ModelConfig, RecurrentConfig
from lm.models.language_model import parameter_counts
from lm.models.restore import restored
from lm.run_directory import RunDirectory
from lm.runtime.device import machine
from lm.training.identity import fingerprints
from lm.training.progress import Progress

log = logging.getLogger(__name__)

MATRICES = ("encoder.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "decoder.weight")


def run(config: ImportConfig) -> None:
    """Read, check against the model's own parameters, and write as the best and last checkpoint."""
    call = invocation()
    assert call is not None, "commands are run through lm.cli"
    foreign = read_state_dict(Path(config.path))
    tokenizer = read_vocabulary(Path(config.vocabulary), len(foreign["encoder.weight"]))
    if not isinstance(config.model, RecurrentConfig):
        raise ConfigError("the weights are a recurrent network's", "Set model=lstm, gru or rnn.")
    composed = training_config(call.config, config.model, foreign)
    parsed = parse(composed, TrainConfig)
    assert isinstance(parsed.model, RecurrentConfig)
    parameters = translate(foreign, tied=parsed.model.tied)
    model = restored(parsed.model, tokenizer.vocab_size, parameters)
    directory = RunDirectory.create(Path(config.runs) / config.name)
    cpu = torch.device("cpu")
    directory.describe(dump(composed), list(call.overrides), machine(cpu))
    checkpoint = Checkpoint(
        model=parameters,
        training={},
        state={
            "progress": Progress().to_json(),
            "imported_from": Path(config.path).name,
            **fingerprints(parsed.model, tokenizer),
        },
        config=dump(portable_config(composed)),
        tokenizer=tokenizer.to_json(),
    )
    directory.checkpoints.save(0, checkpoint, best=True, keep=1)
    total = parameter_counts(model)["total"]
    directory.summarise("done", reason="imported", parameters=total)
    log.info(
        "imported %s parameters, vocabulary %s\nrun directory: %s\nnext:\n"
        "  lm evaluate run=%s splits=[test]",
        f"{total:,}", f"{tokenizer.vocab_size:,}", directory.path, directory.path,
    )  # fmt: skip


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors by name.

    Raises:
        CheckpointError: not a state dict of encoder, rnn and decoder.
    """
    remedy = "Save it with torch.save(model.state_dict(), PATH)."
    try:
        # The one exception: a foreign checkpoint, of which `weights_only` builds tensors alone.
        content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    except Exception as error:  # a stranger's file may make the loader raise anything
        raise CheckpointError(
            f"cannot read the weights of {path}: not a state dict of tensors", remedy
        ) from error
    if not isinstance(content, dict) or not all(map(is_weight, content.items())):
        raise CheckpointError(f"{path} is not a state dict of tensors", remedy)
    for name in MATRICES:
        if name not in content or content[name].ndim != 2:
            found = ", ".join(list(content)[:5])
            raise CheckpointError(f"{path} has no matrix {name}; it has {found} …", remedy)
    return {name: tensor.float() for name, tensor in content.items()}


def is_weight(item: tuple[object, object]) -> bool:
    """A name and numbers that are all there: a view could show a gigabyte of one number."""
    name, tensor = item
    return (
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and tensor.nbytes <= tensor.untyped_storage().nbytes()
    )


def read_vocabulary(path: Path, size: int) -> Tokenizer:
    """A word tokenizer from a list of one word a line, in the order of their ids.

    Raises:
        DataError: unreadable, of another size than the embedding, or without `<eos>`, `<unk>`.
    """
    try:
        words = path.read_text(encoding="utf-8", errors="surrogateescape").split()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    if len(words) != size:
        raise DataError(
            f"{path} has {len(words)} words, the embedding {size} rows",
            "Give the vocabulary that the model was trained with, a word a line in id order.",
        )
    content = {
        "format": FORMAT, "kind": "word", "words": words, "unknown": "<unk>", "min_count": 1
    }  # fmt: skip
    try:
        return tokenizer_from_json(content)
    except CheckpointError as error:
        raise DataError(f"{path}: {error.cause}", "Mend the vocabulary file.") from error


def training_config(
    composed: DictConfig, model: ModelConfig, foreign: dict[str, Tensor]
) -> DictConfig:
    """A training configuration with the chosen cell and the sizes that the tensors have."""
    name = name_of("model", type(model))
    result = compose("train", [f"model={name}", "tokenizer=word"])
    result["model"], result["data"] = composed["model"], composed["data"]
    result["name"], result["runs"] = composed["name"], composed["runs"]
    layers = sum(key.startswith("rnn.weight_hh_l") for key in foreign)
    sizes = {
        "embedding_size": foreign["encoder.weight"].shape[1],
        "hidden_size": foreign["rnn.weight_hh_l0"].shape[1],
        "num_layers": layers,
        "layer_sizes": None,
        "num_biases": 2 if "rnn.bias_hh_l0" in foreign else 0,
        "tied": torch.equal(foreign["encoder.weight"], foreign["decoder.weight"]),
        "output_bias": "decoder.bias" in foreign,
    }
    if "forget_bias" in result["model"]:
        sizes["forget_bias"] = None  # an initialisation, which these weights have behind them
    for key, value in sizes.items():
        OmegaConf.update(result, f"model.{key}", value)
    return result


def translate(foreign: dict[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """Their names into ours: `rnn.weight_ih_l1` is `layers.1.weight_ih`."""
    ours: dict[str, Tensor] = {}
    for name, tensor in foreign.items():
        part, _, leaf = name.partition(".")
        if part == "encoder":
            ours[f"embedding.{leaf}"] = tensor
        elif part == "decoder" and not (tied and leaf == "weight"):
            ours[f"head.{leaf}"] = tensor
        elif part == "rnn":
            kind, _, layer = leaf.rpartition("_l")
            ours[f"layers.{layer}.{kind}"] = tensor
    return ours
