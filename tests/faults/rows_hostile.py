"""Rows of content that would run code: X1 in checkpoints and weights, X2 in configurations."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import foreign
from configurations import BASE, attempts, evil_files
from fault_plan import Figure, Finding, Trial, row
from omegaconf import OmegaConf
from payloads import Payload, payloads
from sentinel import EXECUTING, watching
from stranger import TEXT, checkpoint_of, copied, good_run, seal
from trials import ONLY, drawn, in_child

import lm
from lm.cli import main
from lm.errors import LmError

READERS = ("load", "evaluate", "generate", "resume", "init_from")
LIMITS = ["runtime.device=cpu", "runtime.threads=1", "runtime.kernels=torch"]

Case = tuple[Payload, bool, str]
Cases = Iterator[tuple[str, Callable[[], str | None]]]


@row(
    "X1",
    "a payload in each file of a checkpoint, its manifest made to agree and not; foreign weights",
    "nothing runs; exit 4, or 0 where what was changed is not read",
    Figure.payload,
    few=9,
    full=10_000,
)
def payloads_in_checkpoints(trial: Trial) -> Iterator[Finding]:
    run, cases = good_run(), all_cases(trial.folder)
    chosen = drawn([(case[0].family, name_of(*case)) for case in cases], trial)
    yield from in_child(trial.folder, x1_cases, trial.folder, run, chosen, trial.times)


def x1_cases(folder: Path, good: Path, chosen: list[int], times: int) -> Cases:
    """Checkpoints, then foreign weights."""
    os.chdir(folder)
    yield from checkpoint_cases(folder, good, chosen)
    yield from import_cases(folder, times)


def all_cases(canary: Path) -> list[Case]:
    """Each payload with each seal that it can have, for each reader."""
    whole = product(payloads(canary), (False, True), READERS)
    return [case for case in whole if case[0].listed or not case[1]]


def name_of(payload: Payload, sealed: bool, reader: str) -> str:
    """What is done, in words."""
    return f"{payload.name}, {'' if sealed else 'un'}sealed, {reader}"


def checkpoint_cases(folder: Path, good: Path, chosen: list[int]) -> Cases:
    """The chosen ones of all cases."""
    Path("text.txt").write_text(TEXT)
    canary, run = folder / "canary", folder / "run"
    OmegaConf.register_new_resolver("evil", lambda path: Path(path).touch())
    cases = all_cases(canary)
    for reader in {reader for _, _, reader in map(cases.__getitem__, chosen)}:
        assert read(reader, copied(good, run)) == 0  # what is imported late is imported now
    for name in ("config.yaml", "model.safetensors"):
        (checkpoint_of(copied(good, run)) / name).write_bytes(b"")
        seal(checkpoint_of(run))
        assert read("generate", run) == 4
    for payload, sealed, reader in map(cases.__getitem__, chosen):
        what = name_of(payload, sealed, reader)
        yield what, partial(attack, payload, sealed, reader, good, run, canary)


def attack(
    payload: Payload, sealed: bool, reader: str, good: Path, run: Path, canary: Path
) -> str | None:
    """Read a run with a payload in it; what is wrong with what happened."""
    copied(good, run)
    payload.change(run)
    if sealed:
        seal(checkpoint_of(run))
    return outcome(partial(read, reader, run), payload.codes(reader, sealed=sealed), canary)


def outcome(action: Callable[[], int], expected: set[int], canary: Path) -> str | None:
    """What is wrong with what an action did and with its exit code."""
    canary.unlink(missing_ok=True)
    with watching(EXECUTING) as seen:
        code = action()
    if canary.exists() or seen:
        return f"ran {seen[:3]}"
    return None if code in expected else f"exit {code} instead of {sorted(expected)}"


def read(reader: str, run: Path) -> int:
    """The exit code of a way to read a run."""
    arguments = {
        "evaluate": ["evaluate", f"run={run}"],
        "generate": ["generate", f"run={run}", "num_tokens=2"],
        "resume": ["train", f"resume={run}"],
        "init_from": [
            "train", f"init_from={run}", "data=text", "data.path=text.txt",
            *(word for word in BASE if not word.startswith(("model", "tokenizer"))),
        ],
    }  # fmt: skip
    if reader != "load":
        return main([*arguments[reader], *LIMITS])
    try:
        lm.load(run).generate("the", num_tokens=2)
    except LmError as error:
        return error.code
    return 0


def import_cases(folder: Path, times: int) -> Cases:
    """Foreign weights through `lm import`, which is the one to read pickles."""
    weights, canary = Path("weights.pt"), folder / "canary"
    contents = list(foreign.hostile(canary).items())
    contents = contents[:: max(1, 4 * len(contents) // times)]
    contents = [(kind, content) for kind, content in contents if os.environ.get(ONLY, "") in kind]
    if not contents:
        return
    Path("vocabulary.txt").write_text(foreign.VOCABULARY)
    command = ["import", str(weights), "vocabulary=vocabulary.txt", "model=lstm"]
    for content, code in ((foreign.saved(foreign.good()), 0), (b"", 4)):
        weights.write_bytes(content)
        assert main(command) == code
    for kind, content in contents:

        def action(content: bytes = content) -> int:
            weights.write_bytes(content)
            return main(command)

        yield f"{kind} through lm import", partial(outcome, action, {4}, canary)


@row(
    "X2",
    "names of code where a component, a tokenizer or a `_target_` is named; YAML that has Hydra "
    "run it",
    "nothing is looked up outside the registry, nothing runs; exit 4 or 2",
    Figure.payload,
    few=9,
    full=10_000,
)
def names_of_code(trial: Trial) -> Iterator[Finding]:
    run = good_run()
    chosen = drawn([(attempt.family, attempt.name) for attempt in attempts()], trial)
    yield from in_child(trial.folder, configuration_cases, trial.folder, run, chosen)


def configuration_cases(folder: Path, good: Path, chosen: list[int]) -> Cases:
    """The chosen ones of all attempts to have something named run."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))  # so that it could be imported
    canary, run = folder / "canary", folder / "run"
    Path("text.txt").write_text(TEXT)
    evil_files(folder, canary)
    copied(good, run)
    command = ["train", "data=text", "data.path=text.txt", *BASE, *LIMITS]
    assert main(command) == 0
    for late in (["+model.nothing=1"], ["-m", "experiment=nothing"]):
        main([*command, *late])
    read("load", run)
    for index in chosen:
        attempt = attempts()[index]

        def action(attempt: object = attempt) -> int:
            copied(good, run)
            arguments = attempt.prepare(run)
            return read("load", run) if arguments is None else main([*command, *arguments])

        yield attempt.name, partial(outcome, action, set(attempt.codes), canary)
