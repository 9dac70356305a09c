"""Precision, kernels and measured choices: settled once, said, kept, never changed silently."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lm.errors import ConfigError
from lm.models.lstm import LSTM
from lm.runtime import compute
from lm.runtime.choices import Choices
from lm.runtime.compute import (
    Compute,
    Kernels,
    Precision,
    choose_fp32_products,
    resolve_precision,
    use_fp32_products,
)
from lm.runtime.device import RuntimeConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def plain_products() -> Iterator[None]:
    yield
    use_fp32_products("mkl")


class Way:
    """Takes a given time and counts its calls."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls = seconds, 0

    def __call__(self) -> None:
        self.calls += 1
        time.sleep(self.seconds)


def test_the_fastest_is_chosen_and_asked_for_once() -> None:
    ways = {"slow": Way(0.004), "fast": Way(0.001)}
    choices = Choices()
    assert choices.fastest("shape 1", ways) == "fast"
    calls = ways["fast"].calls
    assert choices.fastest("shape 1", ways) == "fast"
    assert ways["fast"].calls == calls
    assert choices.taken == {"shape 1": "fast"}


def test_the_first_stays_unless_another_is_clearly_faster() -> None:
    assert Choices().fastest("q", {"first": Way(0.004), "other": Way(0.004)}) == "first"


def test_a_way_that_fails_is_not_chosen() -> None:
    def fails() -> None:
        raise RuntimeError("could not create a primitive")

    assert Choices().fastest("q", {"broken": fails, "a": Way(0.002), "b": Way(0)}) == "b"
    assert Choices().fastest("q", {"a": Way(0.001), "broken": fails}) == "a"
    assert Choices().fastest("q", {"broken": fails, "too": fails}) == "broken"


def test_the_file_is_read_once_for_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question comes with every layer of every step."""
    choices = Choices(tmp_path / "measured.json")
    choices.fastest("q", {"a": Way(0), "b": Way(0.002)})
    monkeypatch.setattr(Choices, "_read", lambda self: pytest.fail("read again"))
    assert choices.fastest("q", {"a": Way(0), "b": Way(0.002)}) == "a"


def test_a_choice_is_remembered_by_this_machine_only(tmp_path: Path) -> None:
    file, ways = tmp_path / "measured.json", {"a": Way(0.002), "b": Way(0)}
    assert Choices(file, {"cpu": "x", "threads": 2}).fastest("q", ways) == "b"
    # Now the other one would win.
    swapped = {"a": Way(0), "b": Way(0.002)}
    assert Choices(file, {"cpu": "x", "threads": 2}).fastest("q", swapped) == "b"
    assert swapped["a"].calls == 0
    assert Choices(file, {"cpu": "y", "threads": 2}).fastest("q", swapped) == "a"
    assert set(json.loads(file.read_text())) == {"x 2", "y 2"}


def test_a_remembered_way_that_is_gone_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    Choices(file).fastest("q", {"a": Way(0.002), "gone": Way(0)})
    assert Choices(file).fastest("q", {"a": Way(0), "b": Way(0.002)}) == "a"


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"": 3}'])
def test_a_damaged_memory_is_measured_again(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "measured.json"
    file.write_bytes(content)
    assert Choices(file).fastest("q", {"a": Way(0), "b": Way(0.002)}) == "a"
    assert Choices(file).fastest("q", {"a": Way(0.002), "b": Way(0)}) == "a"


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    choices = Choices(tmp_path / "file" / "measured.json")
    assert choices.fastest("q", {"a": Way(0), "b": Way(0.002)}) == "a"


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bf16_where_it_is_native_and_says_why(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "cpu_has_bf16", lambda: native)
    precision, reason = resolve_precision(Precision.auto, CPU)
    assert precision is (Precision.bf16 if native else Precision.fp32)
    assert reason == ("native here" if native else
                      "this CPU has no native bf16 (avx512_bf16 or amx_bf16)")  # fmt: skip
    assert resolve_precision(Precision.fp32, CPU) == (Precision.fp32, "as asked")


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "cpu_has_bf16", lambda: False)
    with pytest.raises(ConfigError, match=r"runtime.precision=bf16 cannot be served: this CPU"):
        RuntimeConfig(device="cpu", precision=Precision.bf16).build()


def test_fp32_products_stay_accurate_whatever_is_chosen() -> None:
    choose_fp32_products(Choices())
    draws = torch.Generator().manual_seed(3)
    a, b = torch.randn(200, 300, generator=draws), torch.randn(300, 400, generator=draws)
    exact = a.double() @ b.double()
    assert float(((a @ b) - exact).abs().max() / exact.abs().max()) < 1e-6


def test_coarse_products_are_not_taken_for_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_FP32_ERROR", 0.0)
    choices = Choices()
    choose_fp32_products(choices)
    assert choices.taken == {"fp32 products": "mkl"}


def test_the_textbook_setting_leaves_torch_alone(tmp_path: Path) -> None:
    use_fp32_products("onednn")
    built = RuntimeConfig(device="cpu", kernels=Kernels.torch, cache=str(tmp_path)).build()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"
    assert built.choices.taken == {}
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_computes_as_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"precision": "bf16", "choices": {"LSTM": "packed"}}
    monkeypatch.setattr(compute, "cpu_has_bf16", lambda: True)
    picked, asked = Compute(), Compute()
    picked.resume(saved, keep_precision=True)
    asked.resume(saved, keep_precision=False)
    assert picked.precision is Precision.bf16
    assert asked.precision is Precision.fp32
    assert picked.to_json() == saved
    monkeypatch.setattr(compute, "cpu_has_bf16", lambda: False)
    elsewhere = Compute()
    elsewhere.resume(saved, keep_precision=True)
    assert elsewhere.precision is Precision.fp32


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        (Kernels.reference, {"reference"}),
        (Kernels.torch, {"torch"}),
        (Kernels.fast, {"native", "packed", "plain"}),
        (Kernels.auto, {"torch", "native", "packed", "plain"}),
    ],
)
def test_kernels_are_selectable(
    kernels: Kernels, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, called = LSTM(4, 5), set()
    for parameter in cell.parameters():
        parameter.data.fill_(0.1)
    ways = cell.kernels(cell.weights())

    def noting(name: str, way: object) -> object:
        def run(*arguments: object) -> object:
            called.add(name)
            return way(*arguments)  # type: ignore[operator]

        return run

    noted = {name: noting(name, way) for name, way in ways.items()}
    monkeypatch.setattr(cell, "kernels", lambda weights: dict(noted), raising=False)
    monkeypatch.setattr(cell, "reference", noting("reference", cell.reference))
    cell.compute = Compute(kernels=kernels)
    zeros = torch.zeros(2, 5)
    y, _ = cell.sequence(torch.ones(3, 2, 4), {"h": zeros, "c": zeros}, cell.weights())
    assert y.shape == (3, 2, 5)
    assert called == expected & (noted.keys() | {"reference"})


FAULTS = """
import ctypes, resource
from lm.runtime.memory import keep_freed_memory, system_allocation

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = libc.memset.argtypes = None
SIZE = 20 << 20

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffers = [ctypes.c_void_p(libc.malloc(ctypes.c_size_t(SIZE))) for _ in range(8)]
    for buffer in buffers:
        libc.memset(buffer, 1, ctypes.c_size_t(SIZE))
    for buffer in reversed(buffers):
        libc.free(buffer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
print([faults() for _ in range(3)][-1])
with system_allocation():
    print([faults() for _ in range(3)][-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_not_faulted_in_again() -> None:
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, returned = map(int, run.stdout.split())
    assert kept < 2000
    assert returned > 20_000
