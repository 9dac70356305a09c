"""The processes of a run as threads of one: each with a gloo group of its own, as in life."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed as dist

from lm.errors import ProcessError
from lm.runtime.collectives import Groups
from lm.runtime.messages import Messages
from lm.runtime.processes import Processes

T = TypeVar("T")


def together(
    size: int,
    work: Callable[[Processes], T],
    *,
    seconds: float = 5.0,
    one_machine: bool = True,
) -> list[T | BaseException]:
    """What each of `size` processes returns or raises."""
    store = dist.HashStore()
    found: dict[int, T | BaseException] = {}

    def member(rank: int) -> None:
        try:
            group = gloo(dist.PrefixStore("group", store), rank, size, seconds)
            messages = Messages(dist.PrefixStore("words", store), seconds)
            processes = Processes(
                rank, size, local_rank=rank, one_machine=one_machine,
                messages=messages, groups=Groups(group, group),
            )  # fmt: skip
            found[rank] = work(processes)
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(size)]


def gloo(store: dist.Store, rank: int, size: int, seconds: float) -> dist.ProcessGroup:
    """A group that torch's registry, of which there is one for all threads, does not know."""
    group = dist.ProcessGroup(store, rank, size)
    kind = dist.ProcessGroup.BackendType.GLOO
    backend = dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=seconds))
    group._set_default_backend(kind)
    group._register_backend(torch.device("cpu"), kind, backend)
    return group


def all_of(results: list[T | BaseException]) -> list[T]:
    """The results, where nothing was raised; a lost connection is not what was wrong."""
    raised = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(raised, key=lambda error: isinstance(error, ProcessError)):
        raise error
    return results  # type: ignore[return-value]
