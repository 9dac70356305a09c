"""The row of bad text: I1b. Each line of the table in `bad_text`, by the command line."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

from answers import cause_and_remedy
from bad_text import Case, table
from bad_text_commands import GOOD, write
from fault_plan import Figure, Finding, Trial, row
from trials import drawn, in_child

from lm.checkpoint import read_any
from lm.cli import main
from lm.data.corpus import Corpus, Document, Unit
from lm.data.prepare import prepare
from lm.data.tokenizers import tokenizer_from_json
from lm.runtime.files import default_cache

LOGS = ("log", "results.jsonl", "lock", "train.log")


@row(
    "I1b",
    "each line of the table of bad text and data",
    "the exit code; one line of cause and one of remedy; nothing overwritten or left behind;"
    " what is accepted is kept to the last byte",
    Figure.input,
    few=8,
    full=1000,
)
def bad_text(trial: Trial) -> Iterator[Finding]:
    chosen = drawn([(case.family, case.name) for case in table()], trial)
    yield from in_child(trial.folder, text_cases, trial.folder, chosen)


def text_cases(folder: Path, chosen: list[int]) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """The chosen lines."""
    os.chdir(folder)
    write("good.txt", GOOD)
    cases = table()
    for case in map(cases.__getitem__, chosen):
        yield f"{case.family}: {case.name}", partial(answer, case)


def answer(case: Case) -> str | None:
    """What is wrong with what `lm` answered."""
    write("good.txt", GOOD)
    with redirect_stderr(io.StringIO()):
        arguments = case.command()
    before, output, errors = files(), io.StringIO(), io.StringIO()
    with case.meanwhile(), redirect_stdout(output), redirect_stderr(errors):
        code = main(arguments)
    said = output.getvalue() + errors.getvalue()
    if code != case.code or "Traceback" in said:
        return f"exit {code} instead of {case.code}: {said[-600:]}"
    if code:
        return refusal(case, errors.getvalue(), before)
    if not re.search(case.says, said):
        return f"does not say {case.says!r}: {said[-600:]}"
    return lost(Path(case.kept), newest_run()) if case.kept else None


def refusal(case: Case, said: str, before: dict[str, bytes]) -> str | None:
    """What is wrong with how the command was refused."""
    lines = cause_and_remedy(said)
    if lines is None or len(lines[1]) < 8:
        return f"not a line of cause and one of remedy: {said!r}"
    if not re.search(case.says, lines[0]):
        return f"does not say {case.says!r}: {lines[0]}"
    changed = {name for name, content in files().items() if before.get(name) != content}
    gone = before.keys() - files().keys()
    if case.family != "changing" and (changed or gone):
        return f"left {sorted(changed)}, took {sorted(gone)}"
    return None


def files() -> dict[str, bytes]:
    """Everything below the working directory that no log is."""
    found = (path for path in Path().rglob("*") if path.name not in LOGS)
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}


def newest_run() -> Path:
    """The run that was made last."""
    return max(Path("runs").glob("*/*"), key=lambda path: path.stat().st_mtime_ns)


def lost(path: Path, run: Path) -> str | None:
    """What of a file is not in the tokens that a run's tokenizer makes of it."""
    tokenizer = tokenizer_from_json(read_any(run, "last")[1].tokenizer)
    whole = (Document(path),)
    corpus = Corpus("x", whole, whole, whole)
    store = prepare(corpus, tokenizer, Unit.stream, default_cache()).stores["train"]
    decoded, text = tokenizer.decode(store[:]), path.read_bytes()
    unknown = store.header.unknown_count
    if unknown:  # of held-out words, which training has not seen
        return None if tokenizer.unknown_id is not None else f"{unknown} unknown tokens"
    same = decoded == text
    if store.lossless_reason() is None:
        return None if same else "said to be lossless, and is not"
    return None if decoded.split() == text.split() and not same else "words are lost"
