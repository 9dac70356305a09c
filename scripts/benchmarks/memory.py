"""Peak memory of training, from one fresh process per variant."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.options import Options
from benchmarks.result import NotMeasured, Outcome, Result
from benchmarks.sides import Ours, Textbook
from lm.runtime.compute import Precision

_STEPS = 4


def peaks(name: str, options: Options, native: bool) -> Iterator[Outcome]:
    """`<row>_memory` and, where that is another precision, `<row>_memory_fp32`, in MB."""
    results = {f"{name}_memory": "auto"}
    if native:
        results[f"{name}_memory_fp32"] = "fp32"
    try:
        theirs = _in_fresh_process(name, "textbook", options)
        for result, side in results.items():
            yield Result(result, _in_fresh_process(name, side, options), theirs, "MB")
    except RuntimeError as error:
        yield NotMeasured(f"{name}_memory", str(error))


def _in_fresh_process(name: str, side: str, options: Options) -> float:
    """Megabytes.

    Raises:
        RuntimeError: the process failed, with its last words.
    """
    scripts = str(Path(__file__).parents[1])
    paths = [scripts, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", name, side, json.dumps(asdict(options))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"the process of {side} ended with {done.returncode}: {last}")
    return float(done.stdout)


def peak_megabytes(device: torch.device) -> float:
    """The most that this process has held: on the GPU, or else in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # getrusage would do, but on Linux it starts from what the parent held when it forked.
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 / 1e6
    if sys.platform == "win32":
        raise OSError("Windows does not tell the peak memory of a process")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _train(name: str, side: str, options: Options) -> float:
    """A few steps of one side."""
    device = options.torch_device()
    row = options.row(name)
    options.use_threads()
    trained: Ours | Textbook
    if side == "textbook":
        trained = Textbook(row, device, same=False)
    else:
        trained = Ours(row, options, Precision[side])
    for _ in range(_STEPS):
        trained.run()
    return peak_megabytes(device)


if __name__ == "__main__":
    print(_train(sys.argv[1], sys.argv[2], Options(**json.loads(sys.argv[3]))))
