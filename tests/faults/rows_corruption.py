"""Rows of checkpoints that are damaged: C1, C2, C3."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from checkpoints import FILES, example, saved
from fault_plan import Figure, Finding, Trial, log_lines, row
from small_run import directory, train, workplace

from lm.checkpoint import CheckpointFolder
from lm.cli import main

Damage = Callable[[bytes], bytes]


@row(
    "C1",
    "one byte flipped, at random places of every file of the newest checkpoint",
    "detected; the checkpoint before is used, and the log says so",
    Figure.corruption,
    few=20,
    full=200,
)
def a_flipped_byte(trial: Trial) -> Iterator[Finding]:
    checkpoints = saved(trial.place("c"), 1, 2)
    for name in FILES:
        for _ in range(trial.times):
            size = (checkpoints.path / "step-000000002" / name).stat().st_size
            place, mask = trial.draws.randrange(size), trial.draws.randint(1, 255)

            def flip(content: bytes, place: int = place, mask: int = mask) -> bytes:
                return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]

            yield _damaged(checkpoints, name, flip, f"byte {place} of {name} ^ {mask}")


@row(
    "C2",
    "every file of the newest checkpoint cut off at offsets all over it, emptied, or deleted",
    "detected; the checkpoint before is used, and the log says so",
    Figure.corruption,
    few=10,
    full=100,
)
def a_truncated_file(trial: Trial) -> Iterator[Finding]:
    checkpoints = saved(trial.place("c"), 1, 2)
    for name in FILES:
        size = (checkpoints.path / "step-000000002" / name).stat().st_size
        for k in range(trial.times):
            length = k * size // trial.times
            what = f"{name} cut to {length}"
            yield _damaged(checkpoints, name, lambda content, n=length: content[:n], what)
        yield _damaged(checkpoints, name, None, f"{name} deleted")


def _damaged(checkpoints: CheckpointFolder, name: str, damage: Damage | None, what: str) -> Finding:
    """Damage a file of step 2, look for a good checkpoint, and put the file back."""
    path = checkpoints.path / "step-000000002" / name
    content = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(content))
    with log_lines() as said:
        found = checkpoints.newest_good()[1].state
    path.write_bytes(content)
    ok = found == example(1).state and "step-000000002" in str(said)
    return Finding(ok, f"{what}: {found}, {said}")


@row(
    "C3",
    "every checkpoint of a run damaged, then resume, evaluate and generate",
    "exit 4 in two lines; nothing is begun anew, nothing is written",
    Figure.corruption,
    few=1,
    full=20,
)
def all_checkpoints_bad(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        assert train("run", "trainer.max_steps=20").wait() == 0
        run = directory("run")
        assert run is not None
        kept = trial.folder / "kept"
        shutil.copytree(run, kept)
        for _ in range(trial.times):
            for folder in CheckpointFolder(run / "checkpoints").newest_first():
                path = folder / trial.draws.choice(FILES)
                path.write_bytes(path.read_bytes()[:-1])
            before = contents(trial.folder)
            for arguments in (["train", f"resume={run}", "trainer.max_steps=30"],
                              ["evaluate", f"run={run}"], ["generate", f"run={run}"]):  # fmt: skip
                yield _refused(arguments, before, trial.folder)
            shutil.rmtree(run)
            shutil.copytree(kept, run)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for locks and what prepares data."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def _refused(arguments: list[str], before: dict[str, bytes], folder: Path) -> Finding:
    said = StringIO()
    with redirect_stderr(said):
        code = main(arguments)
    lines = said.getvalue().splitlines()
    errors = [k for k, line in enumerate(lines) if line.startswith("lm: error: ")]
    ok = code == 4 and errors == [len(lines) - 2] and contents(folder) == before
    return Finding(ok, f"{arguments[0]}: exit {code}: {said.getvalue()[-500:]}")
