"""Saving in the background loses no error, keeps the order and holds what was when it was asked."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from lm.checkpoint import Checkpoint, CheckpointFolder, read
from lm.errors import NumericError, StorageError
from lm.training.saver import Saver


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        model={"weight": torch.full((3,), float(step))},
        training={"momentum": torch.full((2,), float(step))},
        state={"progress": {"step": step}},
        config="seed: 1\n",
        tokenizer={},
    )


class Slow(CheckpointFolder):
    """Begins to save when it is let, and notes in which order it did."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.let = threading.Event()
        self.order: list[int] = []
        self.error: Exception | None = None

    def save(self, step: int, *arguments: Any, **named: Any) -> Path:
        assert self.let.wait(10)
        self.order.append(step)
        if self.error is not None:
            raise self.error
        return super().save(step, *arguments, **named)


@pytest.fixture
def folder(tmp_path: Path) -> Slow:
    slow = Slow(tmp_path / "checkpoints")
    slow.open_for_writing()
    return slow


def test_what_is_saved_is_what_was_when_it_was_asked(folder: Slow) -> None:
    saver = Saver(folder, keep=2, background=True)
    live = checkpoint(1)
    saver.save(1, live, best=True)
    for tensors in (live.model, live.training):
        for tensor in tensors.values():
            tensor.fill_(99)
    live.state["progress"]["step"] = 99
    assert not folder.newest_first(), "it waited"
    folder.let.set()
    saver.wait()
    back = read(folder.find("best"))
    assert back.model["weight"].tolist() == [1, 1, 1]
    assert (back.training["momentum"].tolist(), back.state["progress"]["step"]) == ([1, 1], 1)


def test_the_next_one_waits_for_the_one_before(folder: Slow) -> None:
    saver = Saver(folder, keep=5, background=True)
    saver.save(1, checkpoint(1), best=False)
    threading.Timer(0.05, folder.let.set).start()
    for step in (2, 3, 4):
        saver.save(step, checkpoint(step), best=False)
    saver.wait()
    assert folder.order == [1, 2, 3, 4]
    assert folder.find("last").name == "step-000000004"
    assert saver.seconds >= 0.04, "the time that training stood still is counted"


@pytest.mark.parametrize("how", ["check", "wait", "save"])
def test_an_error_comes_out_once_wherever_it_is_asked_for(folder: Slow, how: str) -> None:
    saver = Saver(folder, keep=2, background=True)
    folder.error = StorageError("the disk is full")
    folder.let.set()
    saver.save(1, checkpoint(1), best=False)
    assert saver._thread is not None
    saver._thread.join()
    with pytest.raises(StorageError, match="the disk is full"):
        {
            "check": saver.check,
            "wait": saver.wait,
            "save": lambda: saver.save(2, checkpoint(2), best=False),
        }[how]()
    saver.wait()
    assert folder.order == [1]


def test_a_weight_that_is_not_finite_is_refused_there_too(folder: Slow) -> None:
    saver = Saver(folder, keep=2, background=True)
    folder.let.set()
    bad = checkpoint(1)
    bad.model["weight"][0] = float("nan")
    saver.save(1, bad, best=False)
    with pytest.raises(NumericError, match="not finite"):
        saver.wait()


def save_and_raise(saver: Saver, step: int, error: BaseException) -> None:
    with saver.finishing():
        saver.save(step, checkpoint(step), best=False)
        raise error


def test_a_run_that_ends_waits_and_a_run_that_fails_keeps_its_own_error(folder: Slow) -> None:
    saver = Saver(folder, keep=2, background=True)
    folder.let.set()
    with saver.finishing():
        saver.save(1, checkpoint(1), best=False)
    assert folder.find("last").name == "step-000000001"
    folder.error = StorageError("the disk is full")
    with pytest.raises(ZeroDivisionError):
        save_and_raise(saver, 2, ZeroDivisionError())
    with pytest.raises(StorageError), saver.finishing():
        saver.save(3, checkpoint(3), best=False)


def test_the_second_signal_waits_for_nothing(folder: Slow) -> None:
    saver = Saver(folder, keep=2, background=True)
    with pytest.raises(KeyboardInterrupt):
        save_and_raise(saver, 1, KeyboardInterrupt())
    folder.let.set()
    saver.wait()
