"""Rows of signals to a run: S1 and S4."""

import signal
import time
from collections.abc import Iterator

from fault_plan import Figure, Finding, Trial, row
from processes import Child, until
from rows_kill import BACKGROUND, recovered
from small_run import directory, train, whole_run, workplace

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
INTERRUPTED = 130
STOPPED = 75


@row(
    "S1",
    "SIGTERM, SIGINT or SIGUSR1 at a random moment of a run",
    "saved at that very step, exit 75 (or 0, when it was done); resumed it is identical",
    Figure.resume,
    few=1,
    full=50,
)
def one_signal(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, seconds = whole_run()
        for k in range(trial.times):
            number, name = SIGNALS[k % len(SIGNALS)], f"stopped-{k}"
            child = _started(name, *([BACKGROUND] if k % 2 else []))
            time.sleep(trial.draws.uniform(0, seconds))
            child.send(number)
            code = child.wait()
            after = recovered(name, expected)
            ok = after.exact and code in (STOPPED, 0) and not after.measures["steps_lost"]
            what = f"{number.name} at step {after.reached}: exit {code}, exact: {after.exact}"
            yield Finding(ok, f"{what}: {child.said()[-300:]}", after.measures)


def _started(name: str, *extra: str) -> Child:
    child = train(name, *extra)
    until(lambda: directory(name), child)
    return child


@row(
    "S4",
    "a second SIGINT right after the first, at a random moment of a run",
    "the process leaves within 2 s; what was saved verifies; resumed it is identical",
    Figure.resume,
    few=1,
    full=50,
)
def two_signals(trial: Trial) -> Iterator[Finding]:
    with workplace(trial.folder):
        expected, seconds = whole_run()
        for k in range(trial.times):
            name = f"stopped-{k}"
            child = _started(name, *([BACKGROUND] if k % 2 else []))
            time.sleep(trial.draws.uniform(0, seconds))
            child.send(signal.SIGINT)
            time.sleep(trial.draws.uniform(0, 0.02))
            started = time.perf_counter()
            child.send(signal.SIGINT)
            code = child.wait()
            left = time.perf_counter() - started
            after = recovered(name, expected)
            ok = after.exact and left <= 2 and code in (STOPPED, INTERRUPTED, 0)
            what = f"at step {after.reached}: exit {code} after {left:.2f} s, exact: {after.exact}"
            measures = {**after.measures, "leaving_seconds": left}
            yield Finding(ok, f"{what}: {child.said()[-300:]}", measures)
