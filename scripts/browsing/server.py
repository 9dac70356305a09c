"""TensorBoard on a free port of this machine, and a headless Chromium that looks at it."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SECONDS = 60


def missing() -> str | None:
    """What is not installed that is needed here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if chromium() is None:
        return f"no Chromium on PATH: one of {', '.join(_CHROMIUM)}"
    return None


def chromium() -> str | None:
    """The system's browser."""
    return next((path for name in _CHROMIUM if (path := shutil.which(name))), None)


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """The address of a TensorBoard on a folder of runs.

    It has a process group of its own, which is ended by its id: TensorBoard starts others.

    Raises:
        RuntimeError: it does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder),
               "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false",
               "--samples_per_plugin", "text=100,images=100"]  # fmt: skip
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait_for(address, process)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}data/plugins_listing", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"TensorBoard does not answer at {address} (exit code {process.poll()})")


@contextlib.contextmanager
def browser(width: int = 1280, height: int = 800) -> Iterator[Any]:
    """A page of a headless Chromium, in playwright's terms."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Chromium's sandbox needs rights that a container does not give.
        flags = ["--no-sandbox", "--hide-scrollbars"]
        window = driver.chromium.launch(executable_path=chromium(), args=flags)
        try:
            page = window.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(_SECONDS * 1000)
            yield page
        finally:
            window.close()
