"""The row of a sweep in which one job fails: L1, of one process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fault_plan import Figure, Finding, Trial, row
from processes import Child
from small_run import RECIPE, workplace

SHORT = (
    "trainer.max_steps=6", "trainer.valid_every=6", "trainer.save_every=null",
    "trainer.sample_tokens=0", "schedule=constant", "optim=sgd",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """A value that only the run itself finds out about.

    Attributes:
        override: with `{}` for the values of the three jobs.
        good, bad: values of it.
        code: the exit code of the job, and so of the sweep.
        given: what every job is told besides.
    """

    override: str
    good: tuple[str, str]
    bad: str
    code: int
    given: tuple[str, ...] = ()


DIVERGES = ("trainer.clip.norm=null", "trainer.max_bad_steps=2")
FAILURES = (
    Failure("model.init.output.scale={}", ("0.1", "0.2"), "1e12", 5, DIVERGES),
    Failure("freeze={}", ("[]", "[embedding]"), "[nope]", 2),
    Failure("trainer.batch_size={}", ("2", "4"), "9999", 3),
    Failure("data.path=choice({})", ("text.txt", "'text.txt'"), "nope.txt", 3),
)


@row(
    "L1",
    "a multirun of three jobs, one of which fails while it runs",
    "one directory per job; the others finish; the exit code is the failure's, which is named",
    Figure.fault,
    few=1,
    full=20,
)
def one_job_of_three(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        for k in range(trial.times):
            yield _sweep(f"sweep-{k}", trial.draws.choice(FAILURES), trial.draws.randrange(3))


def _sweep(name: str, failure: Failure, place: int) -> Finding:
    keys = {text.partition("=")[0] for text in (*SHORT, failure.override, *failure.given)}
    recipe = [text for text in RECIPE if text.partition("=")[0] not in keys]
    values = list(failure.good)
    values.insert(place, failure.bad)
    swept = failure.override.format(",".join(values))
    given = [*recipe, *SHORT, *failure.given, swept, f"name={name}"]
    child = Child.lm("train", "-m", *given, log=Path(f"{name}.log"))
    code, said = child.wait(), child.said()
    (folder,) = Path("runs", name).glob("multirun_*")
    status = {path.parent.name: _status(path) for path in folder.glob("*/summary.json")}
    # What is refused before training has no directory.
    expected = {str(k): "done" if k != place else "failed" for k in range(3)}
    if failure.code in (2, 3):
        del expected[str(place)]
    named = f"lm: error: job {place} (" in said and said.count("lm: error: ") == 1
    ok = code == failure.code and status == expected and named and "Traceback" not in said
    what = f"{swept}: exit {code}, {status}, named {named}"
    return Finding(ok, what if ok else f"{what}: {said[-1500:]}")


def _status(path: Path) -> str:
    return str(json.loads(path.read_text())["status"])
