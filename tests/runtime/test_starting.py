"""How processes are started, find each other, and are waited for."""

import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from lm.errors import ProcessError, Stopped
from lm.runtime.choices import Choices
from lm.runtime.joining import _Service, _welcome
from lm.runtime.launcher import run_processes
from lm.runtime.messages import Messages
from lm.runtime.processes import Processes
from lm.runtime.waiting import beside


def agents_store() -> TCPStore:
    return TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


def test_one_that_was_killed_amid_its_hello_does_not_silence_the_next_attempt() -> None:
    store = agents_store()
    store.add("hello", 1)  # its name would have come next
    with _Service(store, "the second", 0):
        assert _welcome(store.clone(), 5.0) == "the second"


def test_one_that_was_killed_amid_a_word_is_not_waited_for() -> None:
    messages = Messages(agents_store(), 5.0)
    messages.collect("a")
    messages.store.add("collected", 1)
    messages.collect("b")
    assert messages.collected() == ["a", "b"]


def test_a_choice_without_the_agent_is_ones_own() -> None:
    """The run is about to stop and save; it must not end before."""
    store = agents_store()
    client = TCPStore("localhost", store.port, is_master=False)
    choices = Choices(processes=Processes(1, 2, messages=Messages(client, 5.0)))
    client.set("choices/claim/taken", "0")  # by one that cannot say its choice any more
    del store
    assert choices.fastest("free", {"a": list, "b": lambda: time.sleep(0.01)}) == "a"
    assert choices.fastest("taken", {"a": list, "b": lambda: time.sleep(0.01)}) == "a"


def test_whoever_is_not_answered_gives_up() -> None:
    with pytest.raises(ProcessError, match=r"process 0 gave no sign of life for 0\.1 s"):
        _welcome(agents_store(), 0.1)


def test_what_ends_the_waiting_is_raised_though_the_action_goes_on() -> None:
    going_on = threading.Event()

    def look() -> None:
        raise Stopped("another process says so")

    started = time.monotonic()
    with pytest.raises(Stopped, match="another process says so"):
        beside(lambda: going_on.wait(20), look)
    going_on.set()
    assert time.monotonic() - started < 10
    assert beside(lambda: 3, look) == 3


def test_the_agent_leaves_neither_its_handlers_nor_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    command = [sys.executable, "-c", "import os; open(os.environ['RANK'], 'w').close()"]
    monkeypatch.chdir(tmp_path)
    assert run_processes(command, count=2, restarts=0) is None
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    assert {number: signal.getsignal(number) for number in before} == before
    killed = run_processes([sys.executable, "-c", "import os; os.abort()"], count=2, restarts=0)
    assert killed is not None
    assert "of 2 ended by SIGABRT" in killed.cause
