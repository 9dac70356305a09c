"""C compiled where it runs: once, again when anything that matters changes, never half."""

import logging
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from lm.runtime import native
from lm.runtime.device import RuntimeConfig
from lm.runtime.native import compiled

SOURCE = '#include "number.h"\nlong answer(void) { return NUMBER; }\n'
DOUBLE = "void twice(const long *s) { double *x = (double *)s[1]; *x *= s[0]; }\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "number.h").write_text("#define NUMBER 41\n")
    main = folder / "main.c"
    main.write_text(SOURCE + DOUBLE)
    return main


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that compiled something."""
    commands: list[list[str]] = []
    run = subprocess.run

    def noting(command: list[str], **options: Any) -> Any:
        if "--version" not in command:
            commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(native.subprocess, "run", noting)
    return commands


def number(main: Path, cache: Path) -> int:
    library = compiled(main, cache)
    assert library is not None
    return library.number("answer")


def test_compiled_once_and_again_when_a_header_changes(
    source: Path, tmp_path: Path, compilations: list[list[str]]
) -> None:
    assert number(source, tmp_path) == 41
    assert number(source, tmp_path) == 41
    assert len(compilations) == 1
    source.with_name("number.h").write_text("#define NUMBER 42\n")
    assert number(source, tmp_path) == 42
    assert len(compilations) == 2
    assert len(list((tmp_path / "native").glob("*.so"))) == 2


def test_another_cpu_compiles_for_itself(
    source: Path, tmp_path: Path, compilations: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    number(source, tmp_path)
    monkeypatch.setattr(native, "_instructions", lambda: b"another")
    number(source, tmp_path)
    assert len(compilations) == 2


def test_numbers_and_tensors_arrive(source: Path, tmp_path: Path) -> None:
    library = compiled(source, tmp_path)
    assert library is not None
    x = torch.tensor([1.5], dtype=torch.float64)
    library("twice", [2], [x])
    assert x.item() == 3.0


def test_without_a_compiler_there_is_no_library(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert compiled(source, tmp_path) is None
    assert "no C compiler" in caplog.text


def test_what_does_not_compile_is_said_and_left_out(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source.write_text("long answer(void) { return mistake; }")
    assert compiled(source, tmp_path) is None
    assert "mistake" in caplog.text
    assert not list((tmp_path / "native").glob("**/*.so"))


def test_a_damaged_library_is_said_and_left_out(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    number(source, tmp_path / "good")
    (whole,) = (tmp_path / "good" / "native").glob("*.so")
    damaged = tmp_path / "damaged" / "native" / whole.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not a library")
    assert compiled(source, tmp_path / "damaged") is None
    assert str(damaged) in caplog.text


def test_the_environment_says_where_and_no_configuration(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "own"))
    RuntimeConfig(device="cpu", cache=str(tmp_path / "named")).build()
    assert compiled(source) is not None
    assert len(list((tmp_path / "own" / "native").glob("*.so"))) == 1
    assert not (tmp_path / "named" / "native").exists()


def test_a_cache_that_others_may_write_is_not_loaded_from(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    number(source, tmp_path)
    folder = tmp_path / "native"
    assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0
    folder.chmod(0o777)
    assert compiled(source, tmp_path) is None
    assert "others may write" in caplog.text
    folder.chmod(0o700)
    assert number(source, tmp_path) == 41


def test_a_cache_that_cannot_be_made(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert compiled(source, tmp_path / "file") is None
    assert "slower kernels" in caplog.text
