"""Rows of sweeps in which one job fails and of starts by torchrun: L1, L1b and L1c."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agents import together, train
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
    swept, given = _arguments(failure, place)
    child = Child.lm("train", "-m", *given, f"name={name}", log=Path(f"{name}.log"))
    code = child.wait()
    return _judged(
        name, failure, place, f"{swept}: exit {code}", child.said(), code == failure.code
    )


def _arguments(failure: Failure, place: int) -> tuple[str, list[str]]:
    """What is swept, with the bad value at a place, and all overrides."""
    keys = {text.partition("=")[0] for text in (*SHORT, failure.override, *failure.given)}
    kept = [text for text in RECIPE if text.partition("=")[0] not in keys]
    values = list(failure.good)
    values.insert(place, failure.bad)
    swept = failure.override.format(",".join(values))
    return swept, [*kept, *SHORT, *failure.given, swept]


def _judged(
    name: str, failure: Failure, place: int, what: str, said: str, right_code: bool
) -> Finding:
    (folder,) = Path("runs", name).glob("multirun_*")
    status = {path.parent.name: _status(path) for path in folder.glob("*/summary.json")}
    # What is refused before training has no directory.
    expected = {str(k): "done" if k != place else "failed" for k in range(3)}
    if failure.code in (2, 3):
        del expected[str(place)]
    named = f"lm: error: job {place} (" in said and said.count("lm: error: ") == 1
    ok = right_code and status == expected and named and "Traceback" not in said
    what = f"{what}, {status}, named {named}"
    return Finding(ok, what if ok else f"{what}: {said[-1500:]}")


def _status(path: Path) -> str:
    return str(json.loads(path.read_text())["status"]) if path.exists() else "nothing"


@row(
    "L1b",
    "torchrun of two processes, started one time after the other under the same name",
    "each makes exactly one run directory and is done; no process or file is left behind",
    Figure.fault,
    few=1,
    full=20,
)
def started_by_torchrun(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        for k in range(trial.times):
            # Each second one as programs of their own, which do not come at the same instant.
            job = train("started", *SHORT, torchrun=True, programs=k % 2 == 1)
            code, left = job.wait(), job.left_behind()
            runs = sorted(Path("runs", "started").iterdir())
            statuses = [_status(run / "summary.json") for run in runs]
            ok = code == 0 and statuses == ["done"] * (k + 1) and not left
            what = f"start {k}: exit {code}, {statuses}, left {left}"
            yield Finding(ok, what if ok else f"{what}: {job.agent.said()[-1500:]}")


@row(
    "L1c",
    "a multirun of three jobs of two processes each, one of which fails, by lm and by torchrun",
    "as L1; torchrun's own exit code is 1",
    Figure.fault,
    few=0,
    full=12,
)
def one_job_of_three_by_two_processes(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        for k in range(trial.times):
            name, torchrun = f"sweep-{k}", k % 2 == 1
            failure, place = trial.draws.choice(FAILURES), trial.draws.randrange(3)
            swept, given = _arguments(failure, place)
            job = together("train", "-m", *given, name=name, torchrun=torchrun)
            code, left = job.wait(), job.left_behind()
            expected = 1 if torchrun else failure.code
            what = f"{'torchrun' if torchrun else 'lm'}, {swept}: exit {code}, left {left}"
            right = code == expected and not left
            yield _judged(name, failure, place, what, job.agent.said(), right)
