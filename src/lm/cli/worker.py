"""`python -m lm.cli.worker FOLDER`: one of several processes of a job, as `lm.cli.jobs` starts."""

import sys
from pathlib import Path

from lm.cli.jobs import work
from lm.cli.report import report

if __name__ == "__main__":
    try:
        code = work(Path(sys.argv[1]))
    except BaseException as error:
        code = report(error)
    sys.exit(code)
