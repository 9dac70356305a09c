"""Whose a folder is: the living are respected, the dead are not, whatever they left behind."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lm.errors import StorageError
from lm.runtime import lock as lock_module
from lm.runtime import ownership
from lm.runtime.ownership import STALE_SECONDS, Owner, Standing, owning


def test_this_process_is_told_from_all_others() -> None:
    here = Owner.of_this_process()
    assert (here.pid, Owner.read(here.write())) == (os.getpid(), here)
    parent = replace(here, pid=os.getppid(), started=ownership.started(os.getppid()))
    assert parent.standing() is Standing.alive
    assert replace(parent, started="1").standing() is Standing.gone, "the number is another's now"
    assert replace(parent, boot="before").standing() is Standing.gone, "the machine started anew"
    assert replace(parent, host="elsewhere").standing() is Standing.unknown
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert replace(here, pid=ended.pid).standing() is Standing.gone


@pytest.mark.parametrize(
    "text",
    [
        "", "process 3 on there", "{}", "[]", '{"pid": "x"}', "null", "[" * 4096,
        f'{{"host": "h", "pid": {1 << 70}, "boot": "", "started": ""}}',
        '{"host": "\\u001b[2J", "pid": 3, "boot": "", "started": ""}',
        '{"host": [], "pid": 3, "boot": "", "started": ""}',
    ],
)  # fmt: skip
def test_what_names_nobody_is_nobody(text: str) -> None:
    assert Owner.read(text) is None


def test_a_folder_is_owned_once_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with owning(path):
        assert Owner.read(path.read_text()) == Owner.of_this_process()
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()} on"), owning(path):
            pass
    assert path.read_text() == ""
    with pytest.raises(ZeroDivisionError), owning(path):
        raise ZeroDivisionError
    assert path.read_text() == "", "given back however it ends"


def test_who_has_the_lock_is_named_and_not_who_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, here = tmp_path / "lock", Owner.of_this_process()
    path.write_text(replace(here, started="1", pid=os.getppid()).write())
    monkeypatch.setattr(ownership, "try_lock", lambda handle: False)
    monkeypatch.setattr(time, "sleep", lambda seconds: path.write_text(here.write()))
    with pytest.raises(StorageError, match=f"in use by process {here.pid} on"):
        owning(path).__enter__()
    path.write_text("")
    monkeypatch.setattr(ownership, "_NAMING_SECONDS", 0.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(StorageError, match="in use by another process"):
        owning(path).__enter__()


def of_another_machine(path: Path, age: float) -> None:
    path.write_text(replace(Owner.of_this_process(), host="elsewhere").write())
    then = time.time() - age
    os.utime(path, (then, then))


@pytest.fixture
def _short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "WATCHED_SECONDS", 0.05)
    monkeypatch.setattr(ownership, "_LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("_short_watch")
def test_an_owner_on_another_machine_is_believed_as_long_as_it_shows_itself(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    of_another_machine(path, STALE_SECONDS - 60)
    with pytest.raises(StorageError, match=r"in use by process \d+ on elsewhere") as caught:
        owning(path).__enter__()
    assert f"delete {path}" in caught.value.remedy
    of_another_machine(path, STALE_SECONDS + 60)
    with owning(path):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock"]


@pytest.mark.usefixtures("_short_watch")
@pytest.mark.parametrize("age", [86_400.0, -86_400.0])
def test_a_clock_that_was_set_makes_nobody_dead_or_alive(tmp_path: Path, age: float) -> None:
    path = tmp_path / "lock"
    of_another_machine(path, age)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: os.utime(path))
        with pytest.raises(StorageError, match=r"in use by process \d+ on elsewhere"):
            owning(path).__enter__()
    of_another_machine(path, age)
    with owning(path):
        pass


def test_the_owner_shows_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.01)
    path = tmp_path / "lock"
    with owning(path):
        os.utime(path, (1, 1))
        limit = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < limit:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_without_locks_the_owner_that_is_named_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "try_lock", lambda handle: True)
    path = tmp_path / "lock"
    parent = os.getppid()
    named = replace(Owner.of_this_process(), pid=parent, started=ownership.started(parent))
    path.write_text(named.write())
    with pytest.raises(StorageError, match=f"in use by process {parent} on"):
        owning(path).__enter__()
    path.write_text(replace(named, started="1").write())
    with owning(path):
        pass


def test_a_file_system_without_locks_gives_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(lock_module._NO_LOCKS[0], "no locks")

    monkeypatch.setattr(lock_module.fcntl, "flock", unsupported)
    assert lock_module.try_lock(0)
