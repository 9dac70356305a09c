"""What two processes of this machine do: their link, and steps alone and together.

Each has a core. The link's two numbers come from all-reduces of several sizes; with them and the
step of a process alone (both do theirs at the same time) the model says what a step together takes.
"""

import datetime
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed as dist
from torch._C._distributed_c10d import FileStore
from torch.multiprocessing.spawn import spawn

from lm.models.base import State
from lm.runtime.collectives import Groups
from lm.runtime.processes import ALONE, Processes
from lm.training.communication import WireType
from scaling.hardware import Link
from scaling.traffic import Setting, messages, training_step, window_of

SIZE, ROUNDS = 2, 100
_ELEMENTS = [1 << n for n in range(6, 23, 4)]
_PLAIN: dict[str, Any] = {
    "vocab_size": 10_000, "hidden_size": 200, "tied": True, "streams": 10, "window": 35
}  # fmt: skip
SETTINGS = {
    "fp32": Setting(**_PLAIN),
    "bf16": Setting(**_PLAIN, dtype=WireType.bf16),
    "PowerSGD, rank 4": Setting(**_PLAIN, rank=4),
    "split vocabulary": Setting(**_PLAIN, split=True),
}


def measure() -> dict[str, Any]:
    """Everything, as JSON."""
    load = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        spawn(_process, args=(folder,), nprocs=SIZE)  # type: ignore[no-untyped-call]
        found = torch.tensor(_floats(Path(folder) / "times"), dtype=torch.float64)
    exchanges, alone, together = found.tensor_split([len(_ELEMENTS), len(_ELEMENTS) + 1])
    about = {"date": str(datetime.date.today()), "torch": torch.__version__}
    return {
        **about, "cores": os.cpu_count(), "load": load, "rounds": ROUNDS, **_fit(exchanges),
        "alone": alone.item(),
        "together": dict(zip(SETTINGS, together.tolist(), strict=True)),
    }  # fmt: skip


def predicted(record: dict[str, Any]) -> dict[str, float]:
    """Seconds of a step together, from the step alone and the link.

    The CPU has nothing to spare: what is sent while it computes holds it up, so nothing hides.
    """
    link = link_of(record)
    return {
        name: record["alone"] + sum(link.seconds(m, SIZE) for m in messages(setting, SIZE))
        for name, setting in SETTINGS.items()
    }


def link_of(record: dict[str, Any]) -> Link:
    """Of the processes that were measured."""
    speed, alpha = record["bytes_per_second"], record["alpha_seconds"]
    return Link("gloo", inside=speed, outside=speed, inside_alpha=alpha, peer_seconds=0.0)


def _fit(seconds: torch.Tensor) -> dict[str, float]:
    """An all-reduce of two takes 2 α + bytes ÷ speed; errors count by their share."""
    nbytes = 4.0 * torch.tensor(_ELEMENTS, dtype=torch.float64)
    rows = torch.stack([torch.full_like(nbytes, 2.0), nbytes], dim=1) / seconds[:, None]
    alpha, per_byte = torch.linalg.lstsq(rows, torch.ones(len(rows), 1, dtype=rows.dtype)).solution
    return {"alpha_seconds": alpha.item(), "bytes_per_second": 1 / per_byte.item()}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/store", SIZE)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=SIZE)
    world = dist.group.WORLD
    assert world is not None
    processes = Processes(rank, SIZE, groups=Groups(world, world))
    times = _least([
        *(partial(processes.add_up, torch.zeros(count)) for count in _ELEMENTS),
        _stepping(SETTINGS["fp32"], ALONE),
        *(_stepping(setting, processes) for setting in SETTINGS.values()),
    ])  # fmt: skip
    if rank == 0:
        (Path(folder) / "times").write_text(" ".join(map(repr, times)), encoding="utf-8")
    dist.destroy_process_group()


def _stepping(setting: Setting, processes: Processes) -> Callable[[], None]:
    step, window = training_step(setting, processes), window_of(setting)
    state: list[State | None] = [None]

    def run() -> None:
        state[0] = step(window, state[0], step=0, lr_multiplier=0.1)

    return run


def _least(works: Sequence[Callable[[], None]]) -> list[float]:
    """The least time of each, all in turns: others use the machine too."""
    times = [float("inf")] * len(works)
    for turn in range(ROUNDS):
        for place, work in enumerate(works):
            dist.barrier()
            begun = time.perf_counter()
            work()
            if turn > 1:
                times[place] = min(times[place], time.perf_counter() - begun)
    return times


def _floats(path: Path) -> list[float]:
    return [float(word) for word in path.read_text(encoding="utf-8").split()]
