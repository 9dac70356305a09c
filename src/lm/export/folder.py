"""An exported model: a folder that is whole and checked, or absent."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from lm.data.corpus import Unit
from lm.data.tokenizers import Tokenizer
from lm.errors import StorageError
from lm.export.agreement import Agreement, Runner, agreement
from lm.export.form import ExportFormat
from lm.export.graphs import STEP, WINDOW, exportable, flat, programs, state_sizes
from lm.export.onnx_format import OnnxRunner, require_onnx, write_graphs
from lm.export.readme import Facts, readme
from lm.export.torch_format import TorchRunner, write_programs
from lm.models import LanguageModel, ModelConfig, RecurrentModel
from lm.models.language_model import parameter_counts
from lm.runtime.files import folder_atomically, storage_errors, write_atomically

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FORMAT = 1
"""Of `config.json`."""
_STAGES = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported.

    Attributes:
        architecture: the configuration that the model was built from.
        unit: where its state was reset in training.
        origin: the checkpoint's name.
        begin: the token to generate from where there is no text.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    architecture: ModelConfig
    unit: Unit
    origin: str
    begin: int


def check_format(form: ExportFormat) -> None:
    """Find out before any work whether the format can be written here.

    Raises:
        ConfigError: it needs packages that are not installed.
    """
    if form is ExportFormat.onnx:
        require_onnx()


def check_free(output: Path) -> None:
    """Find out before any work whether the folder may be written.

    Raises:
        StorageError: something is there already.
    """
    with storage_errors(f"read {output}"):
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return
    raise StorageError(
        f"{output} exists and is not an empty folder",
        "Choose another folder with output=, or remove it.",
    )


def export(subject: Subject, form: ExportFormat, output: Path) -> Agreement:
    """Write the folder, once what lies in it has been compared with the model.

    Raises:
        ConfigError: the model has no recurrent state.
        StorageError: something is there already, or the disk is full.
        ExportError: what was exported computes something else; nothing is left behind.
    """
    model = exportable(subject.model)
    check_free(output)
    bar = tqdm(total=_STAGES, desc="trace", disable=None, leave=False)
    with bar, storage_errors(f"write {output}"), _no_empty_parents(output):
        found = programs(model)
        with folder_atomically(output) as folder:
            _next(bar, "convert")
            runners = _write(model, found, form, folder)
            _next(bar, "check")
            checked = agreement(model, runners)
            _next(bar, "write")
            _describe(subject, model, form, checked, folder)
        bar.update()
    return checked


def _write(
    model: RecurrentModel, found: "dict[str, ExportedProgram]", form: ExportFormat, folder: Path
) -> dict[str, Runner]:
    """Both programs in their format; what runs them as their user will."""
    if form is ExportFormat.onnx:
        write_graphs(folder, found, list(state_sizes(model)))
        return {name: OnnxRunner(folder / f"{name}.onnx") for name in (WINDOW, STEP)}
    write_programs(folder, found)
    return {name: TorchRunner(found[name]) for name in (WINDOW, STEP)}


def _describe(
    subject: Subject, model: RecurrentModel, form: ExportFormat, checked: Agreement, folder: Path
) -> None:
    """All files but the graphs."""
    start = flat(model, model.initial_state(1))
    state = {
        name: tensor[0].tolist() for name, tensor in zip(state_sizes(model), start, strict=True)
    }
    facts = Facts(
        summary=_summary(subject, model),
        sizes=state_sizes(model),
        vocab_size=model.vocab_size,
        tokenizer=subject.tokenizer.kind,
        unit=subject.unit.name,
        agreement=checked.describe(),
    )
    files = {
        "config.json": _json(_config(subject, model, checked), indent=1),
        "initial_state.json": _json(state),
        "tokenizer.json": _json(_describe_tokenizer(subject.tokenizer)),
        "README.md": readme(facts, form.value),
    }
    if form is ExportFormat.onnx:
        files["use.py"] = Path(__file__).with_name("use.py").read_text(encoding="utf-8")
    for name, text in files.items():
        write_atomically(folder / name, text.encode())


def _summary(subject: Subject, model: RecurrentModel) -> str:
    cells = {type(cell).__name__ for cell in model.cells}
    total = parameter_counts(model)["total"]
    layers = "one layer" if len(model.cells) == 1 else f"{len(model.cells)} layers"
    return f"{', '.join(sorted(cells))}, {layers}, {total:,} parameters"


def _config(subject: Subject, model: RecurrentModel, checked: Agreement) -> dict[str, object]:
    return {
        "format": FORMAT,
        "cell": type(subject.architecture).__name__.removesuffix("Config"),
        "architecture": subject.architecture.architecture(),
        "vocab_size": model.vocab_size,
        "parameters": parameter_counts(model),
        "state": state_sizes(model),
        "tokenizer": subject.tokenizer.kind,
        "tokenizer_fingerprint": subject.tokenizer.fingerprint,
        "begin_token": subject.begin,
        "unit": subject.unit.name,
        "checkpoint": subject.origin,
        "largest_difference": {"log_prob": checked.log_prob, "state": checked.state},
    }


def _describe_tokenizer(tokenizer: Tokenizer) -> dict[str, object]:
    """Our own format; a byte-pair tokenizer as the library `tokenizers` reads it."""
    content = tokenizer.to_json()
    library = content.get("tokenizer")
    if tokenizer.kind != "bpe" or not isinstance(library, dict):
        return content
    decoder = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False
    }  # fmt: skip
    return {**library, "decoder": decoder}


def _json(content: object, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, default=_plain) + "\n"


def _plain(value: Any) -> object:
    """What JSON cannot hold of a configuration, as what it can."""
    return value.value if isinstance(value, Enum) else dataclasses.asdict(value)


def _next(bar: "tqdm[NoReturn]", stage: str) -> None:
    bar.update()
    bar.set_description(stage)


@contextmanager
def _no_empty_parents(output: Path) -> Iterator[None]:
    """Take away the folders above that were made for it, should it not come to be."""
    missing = [path for path in output.parents if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # it is there, or another's work is
                path.rmdir()
