"""Each row that guards a defence fails when the defence is taken out."""

from pathlib import Path

import pytest
from broken_builds import BUILDS, VARIABLE, take_out
from campaign import carry_out
from rows import ROWS
from stranger import good_run
from trials import ONLY


@pytest.mark.parametrize("name", BUILDS)
def test_a_broken_build_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = BUILDS[name]
    good_run()  # by an lm in order
    monkeypatch.setenv(VARIABLE, name)
    monkeypatch.setenv(ONLY, build.only)
    take_out(name, monkeypatch)
    assert carry_out(ROWS[build.row], tmp_path, build.times).failures
