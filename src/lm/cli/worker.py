"""`python -m lm.cli.worker FOLDER SECONDS`: one of the processes that `lm.cli.jobs` starts."""

import sys
from pathlib import Path

from lm.cli.jobs import work
from lm.cli.report import INTERRUPTED, report

if __name__ == "__main__":
    try:
        code = work(Path(sys.argv[1]), float(sys.argv[2]))
    except KeyboardInterrupt:
        code = INTERRUPTED  # whoever started this process says so
    except BaseException as error:
        code = report(error)
    sys.exit(code)
