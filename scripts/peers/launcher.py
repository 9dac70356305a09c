"""Starts a program again and again from a process that has imported what the program needs.

`python -m peers.launcher MODULE…`, under the interpreter of the program: reads orders from standard
input, one JSON object a line, and forks for each. What is stopped and killed is a process of its
own like any other; only the seconds that importing takes are saved. Nothing of ours but this and
`peers.sabotage` is imported there, so the interpreter needs to have nothing of ours.
"""

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from peers import sabotage


def main(modules: list[str]) -> None:
    """Serve until standard input ends."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page of what was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            _watch(json.loads(line))


def _watch(order: dict[str, Any]) -> None:
    """Start the program, and write its process id and exit code for whoever ordered it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        _become(order)
        sabotage.install(order["sabotage"])
        _leave(_run(order["target"], order["arguments"]))
    _write(Path(order["status"] + ".pid"), child)
    _, status = os.waitpid(child, 0)
    _write(Path(order["status"]), os.waitstatus_to_exitcode(status))
    os._exit(0)


def _write(path: Path, number: int) -> None:
    whole = path.with_name(path.name + "~")
    whole.write_text(str(number))
    whole.rename(path)


def _become(order: dict[str, Any]) -> None:
    """Take the folder, environment and log that a shell would have given the program."""
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    tempfile.tempdir = None  # an import may have asked for it, and it is remembered
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for old, new in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # A shell's background jobs, and what they start, ignore some signals.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()  # a fork would draw the same as the one before


def _run(target: str, arguments: list[str]) -> int:
    """Run a script by its path, or a module by its name; what the interpreter would exit with."""
    sys.argv = [target, *arguments]
    try:
        if target.endswith(".py"):
            sys.path.insert(0, str(Path(target).parent))
            runpy.run_path(target, run_name="__main__")
        else:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
    except SystemExit as request:
        if request.code is None or isinstance(request.code, int):
            return request.code or 0
        print(request.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _leave(code: int) -> None:
    """Exit without tidying up all that was imported, which takes longer than a small run."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
