"""Several processes on this machine, started and watched by torchrun's own agent."""

import logging
import os
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lm.errors import ProcessError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def run_processes(command: Sequence[str], *, count: int, restarts: int) -> ProcessError | None:
    """Run a command so many times at once, and anew if one of them fails.

    Returns:
        which one was killed, where that ended them.

    Raises:
        KeyboardInterrupt: on the second signal; the processes have ended.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=restarts,
        monitor_interval=0.1,
        signals_to_handle=",".join(number.name for number in _SIGNALS),
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # or it leaves an empty folder behind
    )
    program, *arguments = command
    with _environment(count), _quiet_agent(), _own_handlers():
        try:
            elastic_launch(launch, program)(*arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode >= 0:
                return None  # it has said why
            return ProcessError(
                f"process {rank} of {count} ended by {signal.Signals(-failure.exitcode).name}",
                "The last checkpoint is good: continue with resume=; runtime.restarts=3 does so by"
                " itself.",
            )
        except SignalException as signalled:
            if isinstance(signalled.__context__, SignalException):  # while the first was passed on
                raise KeyboardInterrupt from signalled
            # Else the processes were told, and said what came of it.
    return None


@contextmanager
def _environment(count: int) -> Iterator[None]:
    """What the processes inherit: their share of the cores, and no address but this machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // count))}
    if Path("/sys/class/net/lo").exists():
        wanted["GLOO_SOCKET_IFNAME"] = "lo"
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Put the signals' handlers back, which the agent replaces for good."""
    if threading.current_thread() is not threading.main_thread():
        yield  # the agent replaces none there
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """The agent's own log says what we say in the user's terms."""
    name = "torch.distributed.elastic"
    names = [known for known in logging.root.manager.loggerDict if known.startswith(name)]
    levels = {logger: logger.level for logger in map(logging.getLogger, [name, *names])}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
