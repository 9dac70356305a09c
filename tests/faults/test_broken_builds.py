"""Each row that guards a defence fails when the defence is taken out."""

from pathlib import Path

import pytest
from broken_builds import ALWAYS, BUILDS
from fault_plan import carry_out
from processes import BROKEN_BUILD
from rows import ROWS
from stranger import good_run
from trials import ONLY


@pytest.mark.parametrize(
    "name",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in BUILDS],
)
def test_a_broken_build_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = BUILDS[name]
    good_run()  # by an lm in order
    monkeypatch.setenv(BROKEN_BUILD, name)
    monkeypatch.setenv(ONLY, build.only)
    build.take_out(monkeypatch)  # what a row does in this process itself
    assert carry_out(ROWS[build.row], tmp_path, build.times).failures
