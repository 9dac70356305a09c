"""Rows of limits: X3 bombs, X4 what a run leaves and opens, C9 formats of other versions."""

import json
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import yaml
from bombs import CELLS, GREEDY, UNREAD, archives, configurations, json_files, zipped
from fault_plan import Figure, Finding, Trial, log_lines, row
from sentinel import LISTENING, watching
from stranger import MANIFEST, RECIPE, TEXT, checkpoint_of, copied, good_run, seal
from trials import drawn, in_child

import lm
from lm.cli import main
from lm.data import archive as archive_module
from lm.data.archive import extract
from lm.errors import CheckpointError, DataError

SECONDS = 1.0
SECRET = "hunter2-9c1185a5c5e9fc54"
UMASKS = (0o027, 0o077, 0o022)
Cases = Iterator[tuple[str, Callable[[], str | None]]]


@row(
    "X3",
    "archives that leave their folder or are bombs; YAML and JSON bombs",
    "refused within a second and bounded memory, and nothing is written",
    Figure.payload,
    few=32,
    full=1000,
)
def bombs(trial: Trial) -> Iterator[Finding]:
    seed = trial.draws.randrange(1 << 30)
    yield from in_child(trial.folder, some_bombs, trial.folder, good_run(), trial.times, seed)


def some_bombs(folder: Path, good: Path, times: int, seed: int) -> Cases:
    """So many of all bombs."""
    cases = list(all_bombs(folder, good))
    trial = Trial(folder, times, random.Random(seed))
    for index in drawn([(what.split()[0], what) for what, _ in cases], trial):
        yield cases[index]


def all_bombs(folder: Path, good: Path) -> Cases:
    """Each archive, and each file in the place of one of a checkpoint."""
    for what, content, said in archives():
        yield f"archive with {what}", partial(unpack, folder, content, said)
    content = zipped(("a", os.urandom(60)), ("b", os.urandom(60)))
    said = "120 bytes unpacked, at most 100"
    yield "archive beyond the cap", partial(unpack, folder, content, said, most=100)
    for what, text in configurations():
        yield f"config.yaml with {what}", partial(load, folder, good, "config.yaml", text.encode())
    for what, model in GREEDY.items():
        yield f"model with {what}", partial(ask, folder, good, "lstm", model)
    for what, (cell, model) in CELLS.items():
        yield f"model with {what}", partial(ask, folder, good, cell, model)
    for what, content in json_files():
        for name in ("state.json", "tokenizer.json", MANIFEST):
            if name != "state.json" or what not in UNREAD:
                yield f"{name} with {what}", partial(load, folder, good, name, content)


def unpack(
    folder: Path, content: bytes, said: str, most: int = archive_module.MAX_BYTES
) -> str | None:
    """What is wrong with how an archive was refused."""
    archive_module.MAX_BYTES = most
    archive, target = folder / "archive.zip", folder / "inner" / "unpacked"
    archive.write_bytes(content)
    before = {path for path in folder.rglob("*") if path.is_file()}
    started = time.process_time()
    try:
        extract(archive, target)
    except DataError as error:
        fault = None if said in error.cause else error.cause
    else:
        fault = "was unpacked"
    if time.process_time() - started > SECONDS:
        return f"{time.process_time() - started:.1f} s"
    left = {path for path in folder.rglob("*") if path.is_file()} - before
    return fault or (f"left {left}" if left else None)


def load(folder: Path, good: Path, name: str, content: bytes) -> str | None:
    """What is wrong with how a checkpoint with other content was refused."""
    checkpoint = checkpoint_of(copied(good, folder / "run"))
    (checkpoint / name).write_bytes(content)
    if name != MANIFEST:
        seal(checkpoint)
    return refused(checkpoint)


def ask(folder: Path, good: Path, cell: str, model: dict[str, object]) -> str | None:
    """What is wrong with how a model was refused that the checkpoint has no weights for."""
    checkpoint = checkpoint_of(copied(good, folder / "run"))
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    config["schemas"]["model"], config["model"] = cell, model
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    state = json.loads((checkpoint / "state.json").read_text())
    del state["architecture"]
    (checkpoint / "state.json").write_text(json.dumps(state))
    seal(checkpoint)
    return refused(checkpoint)


def refused(checkpoint: Path) -> str | None:
    """What is wrong with how a checkpoint was refused."""
    started = time.process_time()
    try:
        lm.load(checkpoint)
    except CheckpointError:
        seconds = time.process_time() - started
        return f"{seconds:.1f} s" if seconds > SECONDS else None
    return "was loaded"


@row(
    "X4",
    "a run with a secret in its environment and in a path, under a umask",
    "no byte of the secret in the run, no file executable or open to more than the umask lets, "
    "no socket bound or connected in training, evaluating and generating",
    Figure.payload,
    few=1,
    full=3,
)
def what_a_run_leaves_and_opens(trial: Trial) -> Iterator[Finding]:
    for umask in UMASKS[: trial.times]:
        place = trial.place(f"{umask:o}")
        yield from in_child(place, traces, place, umask, trial.times > 1)


def traces(folder: Path, umask: int, sweep: bool) -> Cases:
    """Train, evaluate and generate, then look for what is left."""
    os.chdir(folder)
    os.umask(umask)
    os.environ["LM_TEST_SECRET"] = SECRET
    corpus = folder / SECRET
    corpus.mkdir()
    (corpus / "text.txt").write_text(TEXT)
    path = f"data.path={folder}/${{oc.env:LM_TEST_SECRET}}/text.txt"
    limits = ["runtime.device=cpu", "runtime.threads=1", "runtime.kernels=torch"]
    commands = {
        "train": ["train", *RECIPE, path, "runs=runs", "name=traced"],
        "train -m": ["train", *RECIPE, path, "runs=runs", "name=swept", "-m", "seed=1,2"],
        "evaluate": ["evaluate", "run=runs/traced", "data=text", path, *limits],
        "generate": ["generate", "run=runs/traced", "num_tokens=3", *limits],
    }
    if not sweep:
        del commands["train -m"]
    for verb, arguments in commands.items():
        yield f"sockets of lm {verb}", partial(opens_nothing, arguments)
    yield "the secret", secret_left
    yield "permissions", partial(too_open, umask)


def opens_nothing(arguments: list[str]) -> str | None:
    """What sockets a command binds or connects."""
    runs = sorted(Path("runs/traced").glob("*")) if Path("runs").exists() else []
    told = [
        word.replace("run=runs/traced", f"run={runs[0]}") if runs else word for word in arguments
    ]
    with watching(LISTENING) as seen:
        code = main(told)
    return f"{seen}" if seen else (f"exit {code}" if code else None)


def secret_left() -> str | None:
    """Which file of the run has the secret in it."""
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert len(files) > 10, "there is a run"
    found = [path for path in files if SECRET.encode() in path.read_bytes() or SECRET in str(path)]
    return f"stands in {found}" if found else None


def too_open(umask: int) -> str | None:
    """Which file or folder of the run gives more than the umask lets."""
    for path in Path("runs").rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        most = (0o777 if path.is_dir() else 0o666) & ~umask
        if mode & ~most or mode & stat.S_IWOTH:
            return f"{path} has {mode:o}"
    return None


@row(
    "C9",
    "a checkpoint of an older, a newer or no format version",
    "a refusal that names the format; exit 4",
    Figure.corruption,
    few=1,
    full=1,
)
def other_formats(trial: Trial) -> Iterator[Finding]:
    for name in (MANIFEST, "tokenizer.json"):
        for version in (None, 0, 2, -1, 10**15, 1.5, "1", True, [1], {}):
            run = copied(good_run(), trial.folder / "run")
            _set_format(checkpoint_of(run) / name, version)
            if name != MANIFEST:
                seal(checkpoint_of(run))
            try:
                with log_lines():
                    lm.load(run)
                said = "was loaded"
            except CheckpointError as error:
                said = error.cause
            yield Finding("format" in said, f"{name} with format {version!r}: {said}")


def _set_format(path: Path, version: object) -> None:
    content = {**json.loads(path.read_text()), "format": version}
    if version is None:
        del content["format"]
    path.write_text(json.dumps(content, indent=1))
