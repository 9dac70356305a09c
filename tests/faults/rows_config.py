"""The row of configurations and machines that are wrong: I1."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

from answers import cause_and_remedy
from bad_configs import BAD, Bad
from bad_numbers import every_number
from fault_plan import Figure, Finding, Trial, row
from stranger import TEXT, copied, good_run
from trials import drawn, in_child

from lm.cli import VERBS, main
from lm.run_directory import RunDirectory

CODES = frozenset({0, 2, 3, 4, 5, 6, 7, 8})
WRONG = (*BAD, *every_number())


@row(
    "I1",
    "typos, values out of range, conflicts, broken files, missing devices, places not to write to",
    "the exit code, one line of cause and one of remedy, no traceback, nothing written",
    Figure.input,
    few=8,
    full=len(WRONG),
)
def wrong_configurations(trial: Trial) -> Iterator[Finding]:
    chosen = drawn([(bad.family, bad.name) for bad in WRONG], trial)
    yield from in_child(trial.folder, cases, trial.folder, good_run(), chosen)


def cases(
    folder: Path, good: Path, chosen: list[int]
) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """The chosen ones, each in a working directory of its own."""
    for index in chosen:
        bad, place = WRONG[index], folder / f"place-{index}"
        place.mkdir()
        what = f"{bad.family}, {bad.name}: {shown(bad.arguments.split())}"
        yield what, partial(attempt, place, good, bad)


def attempt(place: Path, good: Path, bad: Bad) -> str | None:
    """What is wrong with how it was answered."""
    os.chdir(place)
    (place / "text.txt").write_text(TEXT)
    for name, text in bad.files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    arguments = bad.arguments.split(" ")
    if arguments[0] not in (*VERBS, "trian"):
        arguments = ["train", *arguments]
    said = StringIO()
    with ExitStack() as held:
        if "resume=run" in arguments:  # that another owns
            held.enter_context(RunDirectory.open(copied(good, place / "run")).owned())
        before = _content(place)
        held.enter_context(redirect_stderr(said))
        held.enter_context(redirect_stdout(said))
        code = main(arguments)
        after = _content(place)
    fault = answer_fault(code, said.getvalue())
    if fault is None and (code != bad.code or bad.says not in said.getvalue()):
        fault = f"exit {code}, not {bad.code} with {bad.says!r}"
    if fault is None and after != before:
        fault = f"changed {sorted(after.items() ^ before.items())[:3]}"
    return None if fault is None else f"{fault}\n{said.getvalue()[-1500:]}"


def _content(place: Path) -> dict[str, bytes]:
    """All that is there."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in place.rglob("*")
    }


def answer_fault(code: int, said: str) -> str | None:
    """What is wrong with an exit code and what was said on standard error."""
    if code not in CODES:
        return f"exit {code}"
    if "Traceback" in said:
        return "a traceback"
    if code and cause_and_remedy(said) is None:
        return f"exit {code} without a line of cause and one of remedy"
    return None


def shown(arguments: list[str]) -> str:
    """The command line on one line, and not all of what is long."""
    return " ".join(f"{ascii(text)[1:-1]:.80}" for text in arguments)
