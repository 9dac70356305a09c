"""Shared set-up: shapes and types of every signature in `lm` are checked while testing."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

import pytest
import typechecking

# Bytecode is kept even where the environment asks for none: to rewrite and compile all tests and
# modules costs each worker four seconds, and what git ignores is in nobody's way.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

typechecking.install()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tests' tensors are tiny: a second thread costs more than it gives."""
    import torch  # takes two seconds, and who only hands the tests out does without

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> None:
    """All that was imported stays: the collector need not look at it time and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """What Hydra made of the checkout's files it need not make again."""
    with pytest.MonkeyPatch.context() as patch:
        if "lm.config" in sys.modules:  # a test of tensors alone does without Hydra
            import composing

            composing.install(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_cache(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[None]:
    """One cache for all workers and the processes they start, and not the user's own.

    The kernels in it are those of the last time, unless something that goes into them changed:
    to compile them takes six seconds.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    if hasattr(pytestconfig, "cache"):
        with contextlib.suppress(OSError):  # of another worker that came first, or nowhere to keep
            kept = pytestconfig.cache.mkdir("native")
            kept.chmod(0o700)
            (cache / "native").symlink_to(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LM_CACHE", str(cache))
        yield


@pytest.fixture(autouse=True)
def _fsync_is_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that dies takes the disk with it; what is synced when is tested by recording calls."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
