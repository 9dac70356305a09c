"""Every command of the documentation, in a fresh clone and environment."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/run_documentation.py"


@pytest.mark.slow
def test_every_command_of_the_documentation_does_what_its_page_says() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
