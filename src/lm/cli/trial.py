"""One trial of a sweep: `python -m lm.cli.trial DIRECTORY SWEPT [override …]`.

As `lm train`, but that the run's directory is told, and that the end of standard input is a signal
to save and leave: that is how a sweep stops a trial, and what a trial sees when the sweep dies.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Train as told; the exit code of `lm train`."""
    threading.Thread(target=_leave_at_the_end, name="lm-end", daemon=True).start()
    from pathlib import Path

    from lm import config
    from lm.cli.jobs import run_job
    from lm.cli.report import report

    directory, swept, *overrides = arguments
    try:
        composed = config.compose("train", overrides)
        names = frozenset(swept.split(","))
        call = config.Invocation(composed, tuple(overrides), Path(directory), names)
        run_job("train", call)
    except BaseException as error:
        return report(error)
    return 0


def _leave_at_the_end() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held here, would stand in the way of the end
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
