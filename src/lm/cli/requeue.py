"""A job that Slurm starts again, after it was preempted: its run is there already."""

import os
import shutil
from pathlib import Path


def started_again(directory: Path) -> bool:
    """Whether the job at hand has a run to go on with, from its start before.

    Args:
        directory: of the run; if nothing was saved in it, it makes way for a new one.
    """
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or not directory.is_dir():
        return False
    if any(directory.glob("checkpoints/step-*")):
        return True
    shutil.rmtree(directory)
    return False
