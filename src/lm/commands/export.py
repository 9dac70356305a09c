"""`lm export`: a checkpoint as a folder for programs that do not have `lm`."""

import logging
import sys
from pathlib import Path

from lm.config import ExportConfig
from lm.export.folder import Subject, check_format, check_free, export
from lm.loading import load
from lm.run_directory import RunDirectory

log = logging.getLogger(__name__)


def run(config: ExportConfig) -> float:
    """Write the folder and print what the check found; the largest difference in log_prob."""
    output = Path(config.output)
    check_format(config.format)
    check_free(output)
    RunDirectory.check_place(output.parent, "output")
    loaded = load(config.run, checkpoint=config.checkpoint)
    log.info("%s", loaded.path)
    subject = Subject(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        architecture=loaded.config.model,
        unit=loaded.config.data.unit,
        origin=loaded.path.name,
        begin=loaded.tokenizer.line_end,
    )
    checked = export(subject, config.format, output)
    files = ", ".join(sorted(path.name for path in output.iterdir()))
    sys.stdout.write(f"{checked.describe()}\n{output}: {files}\n")
    return checked.log_prob
