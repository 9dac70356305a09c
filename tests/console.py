"""What a command left and said, for tests that run commands in a folder of their own."""

from pathlib import Path

import pytest


def tree() -> list[str]:
    """Everything below the working directory."""
    return sorted(str(path) for path in Path().rglob("*"))


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The line that says what is wrong; a traceback would be a bug."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return next(line for line in text.splitlines() if line.startswith("lm: error: "))
