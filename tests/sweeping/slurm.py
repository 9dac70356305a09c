"""A Slurm of one machine: sbatch, srun, sacct and scontrol, as far as submitit calls them.

The first task of a job array is preempted once it has saved, and started again, as Slurm does.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

JOB = "4242"


def install(folder: Path) -> None:
    """Put the four commands into a folder."""
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        command = shlex.join([sys.executable, __file__, name])
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)


def sbatch(script: str) -> None:
    Path("submitted.sh").write_text(Path(script).read_text())
    with open("slurm.log", "w") as log:  # noqa: PTH123
        subprocess.Popen(
            [sys.executable, __file__, "controller", script],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    sys.stdout.write(f"Submitted batch job {JOB}\n")


def controller(script: str) -> None:
    """Run both tasks, the first of them in two goes."""
    first, second = (_task(script, number) for number in (0, 1))
    while not list(Path("runs").glob("*/*/0/checkpoints/step-*")):
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGTERM)
    first.wait()
    _task(script, 0, SLURM_RESTART_COUNT="1").wait()
    second.wait()


def _task(script: str, number: int, **more: str) -> "subprocess.Popen[bytes]":
    place = {
        "SLURM_JOB_ID": f"{JOB}_{number}", "SLURM_ARRAY_JOB_ID": JOB,
        "SLURM_ARRAY_TASK_ID": str(number), "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "here",
    }  # fmt: skip
    environment = os.environ | place | more
    return subprocess.Popen(["sh", script], env=environment, start_new_session=True)


def srun(*words: str) -> None:
    command = list(words)
    while command[0].startswith("--"):
        del command[: 2 if command[0] in ("--output", "--error") else 1]
    os.execvp(command[0], command)


def sacct(*_: str) -> None:
    lines = [f"{JOB}_{number}|RUNNING|here" for number in (0, 1)]
    sys.stdout.write("".join(f"{line}\n" for line in ["JobID|State|NodeList", *lines]))


def scontrol(*_: str) -> None:
    sys.stdout.write("here\n")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
