"""A call as JSON, for the other processes of its job: they compose nothing themselves."""

from pathlib import Path
from typing import Any

from lm.config.invocation import Invocation
from lm.config.saved import dump, saved_config
from lm.runtime.processes import Processes


def handed_over(call: Invocation) -> dict[str, Any]:
    """The call of `lm train` as plain data, unresolved: paths are each machine's own.

    Raises:
        ConfigError: it is too large.
    """
    directory = call.job_directory
    return {
        "config": dump(call.config),
        "overrides": list(call.overrides),
        "job_directory": None if directory is None else str(directory),
        "swept": sorted(call.swept),
    }


def taken_over(said: dict[str, Any], processes: Processes) -> Invocation:
    """The inverse of `handed_over`, in another process.

    Raises:
        CheckpointError: of a component that is not registered in this process.
    """
    directory = said["job_directory"]
    config = saved_config(said["config"], Path("the job's configuration"), interpolations=True)
    return Invocation(
        config,
        tuple(said["overrides"]),
        None if directory is None else Path(directory),
        frozenset(said["swept"]),
        processes,
    )
