"""The comparison with other trainers under faults is counted and shown as it was measured."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

PEERS: dict[str, Any] = {
    "date": "2026-11-24",
    "command": "python scripts/fault_peers.py --examples A --lightning B",
    "hardware": {"CPU": "a CPU", "cores": "2"},
    "programs": {
        "examples": {"title": "Them", "about": "As it is.", "versions": {"commit": "abc"}},
        "lm": {"title": "lm", "about": "By its commands.", "versions": {"torch": "2.13.0"}},
    },
    "rows": {
        "kill": {
            "fault": "kill -9",
            "asks": {"resumed": "it goes on", "same": "to the same weights"},
            "cells": {
                "examples": {
                    "tried": 20, "held": {"resumed": [0, 20], "same": [0, 0]},
                    "seen": {"exit -9": 19, "exit 0": 1},
                    "measures": {"steps_lost": {"median": 64.5, "most": 131.0}},
                },
                "lm": {"tried": 20, "held": {"resumed": [20, 20], "same": [19, 20]},
                       "seen": {}, "measures": {"steps_lost": {"median": 4, "most": 9}}},
            },
        },
        "save": {
            "fault": "kill in save", "asks": {"readable": "readable"},
            "cells": {"examples": {"not_applicable": "cannot"}},
        },
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


def test_the_table_has_a_line_for_each_question_and_the_versions_above() -> None:
    from fault_peers import render

    lines = render(PEERS).splitlines()
    assert lines[0] == "- **Them**: commit abc. As it is."
    assert "2026-11-24, CPU a CPU, cores 2:" in lines
    assert "    python scripts/fault_peers.py --examples A --lightning B" in lines
    begin = lines.index("| fault | asked | Them | lm |")
    assert lines[begin + 1 :] == [
        "|---|---|---|---|",
        "| kill -9 | it goes on | 0 / 20 | 20 / 20 |",
        "|  | to the same weights | n/a | 19 / 20 |",
        "|  | steps lost, median / most | 64 / 131 | 4 / 9 |",
        "|  | seen | exit -9 (19 times); exit 0 | n/a |",
        "| kill in save | readable | cannot | not measured |",
    ]


def test_answers_are_counted_where_the_question_arose() -> None:
    from peers.plan import Answer, cell

    answers = [
        Answer({"kept": True, "same": None}, "exit 1", {"steps_lost": 3.0}),
        Answer({"kept": False, "same": True}, "exit 1", {"steps_lost": 9.0}),
        Answer({"kept": True, "same": False}, "", {"steps_lost": 4.0}),
    ]
    assert cell(["kept", "same"], answers) == {
        "tried": 3,
        "held": {"kept": [2, 3], "same": [1, 2]},
        "seen": {"exit 1": 2},
        "measures": {"steps_lost": {"median": 4.0, "most": 9.0}},
    }


def test_a_program_is_run_by_a_fork_with_its_own_exit_code_and_output(tmp_path: Path) -> None:
    import signal
    import sys

    from peers.host import Host, hosting

    script = tmp_path / "program.py"
    script.write_text(
        "import sys, time\nprint(sys.argv[1:])\ntime.sleep(float(sys.argv[1]))\n1 / 0"
    )
    with hosting(host := Host(sys.executable, [], [], tmp_path / "host")):
        failed = host.start(script, ["0", "x"], tmp_path)
        assert failed.wait() == 1
        assert failed.said().startswith("['0', 'x']\n")
        assert failed.traceback
        killed = host.start(script, ["60"], tmp_path)
        killed.send(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        assert killed.steps == 0
