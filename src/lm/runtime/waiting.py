"""Waiting for what a library does that hears no signals meanwhile."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 1.0


def beside(action: Callable[[], T], look: Callable[[], None]) -> T:
    """What an action gives, carried out beside this thread, so that this one hears signals.

    Args:
        look: called now and then; what it raises ends the waiting, as a signal's handler may, and
            leaves the action to the end of the process.
    """
    done: Future[T] = Future()

    def act() -> None:
        try:
            done.set_result(action())
        except BaseException as error:  # raised again where it is waited for
            done.set_exception(error)

    threading.Thread(target=act, name="lm-beside", daemon=True).start()
    while not wait([done], _LOOK_SECONDS).done:
        look()
    return done.result()
