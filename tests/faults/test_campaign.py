"""Every row of the fault plan, with few repetitions by default and with all of them when slow."""

from pathlib import Path

import pytest
from fault_plan import Row, carry_out
from rows import ROWS

QUICK = {key: entry for key, entry in ROWS.items() if entry.few}


@pytest.mark.parametrize("entry", QUICK.values(), ids=list(QUICK))
def test_row_holds(entry: Row, tmp_path: Path) -> None:
    assert carry_out(entry, tmp_path, entry.few).failures == []


@pytest.mark.slow
@pytest.mark.parametrize("entry", ROWS.values(), ids=list(ROWS))
def test_row_holds_as_often_as_planned(entry: Row, tmp_path: Path) -> None:
    assert carry_out(entry, tmp_path, entry.full, seed=2).failures == []
