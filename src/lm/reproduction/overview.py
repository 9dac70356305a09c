"""What has been published, what it costs, and what has been reproduced, as a table."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lm
from lm.reproduction.registry import ROWS
from lm.reproduction.row import Cost, Row
from lm.reproduction.verdict import Verdict

_LEGEND = """\
CPU: two cores of an AMD EPYC with native bf16; GPU: one H100. ≈ is an estimate, ? not known, the
others were measured. Reproduced: the newest record in docs/results or below the folder of runs.
`lm reproduce NAME data.root=FOLDER` runs a row, or continues it.
"""

Record = dict[str, Any]


def overview(runs: Path) -> str:
    """A line for each row.

    Args:
        runs: the folder of runs, whose records count too.
    """
    newest = newest_records([results_dir(), *run_folders(runs)])
    table = [("name", "system", "data", "published", "CPU", "GPU", "reproduced")]
    for row in ROWS.values():
        unit = {"perplexity": "ppl", "bits per byte": "bit/B"}.get(row.metric.value, "bit/char")
        table.append(
            (
                row.name, row.system, row.data, f"{row.metric.show(row.published)} {unit}",
                _cost(row.cpu), _cost(row.gpu), _standing(row, newest.get(row.name)),
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    )
    return "\n".join(lines) + f"\n\n{_LEGEND}"


def results_dir() -> Path:
    """The folder of kept records: `lm/results` where installed, `docs/results` in a checkout."""
    package = Path(lm.__file__).parent
    installed = package / "results"
    return installed if installed.is_dir() else package.parents[1] / "docs" / "results"


def run_folders(runs: Path) -> Iterator[Path]:
    """The directories of runs that `lm reproduce` made; those of a row's stages lie deeper."""
    for pattern in ("reproduce/*/*", "reproduce/*/*/*"):
        yield from runs.glob(pattern)


def newest_records(folders: Iterable[Path]) -> dict[str, Record]:
    """Row → the newest record of its last stage; what came of a modified recipe is left out."""
    newest: dict[str, Record] = {}
    for record in _records(folders):
        row = ROWS.get(record["row"])
        if row is None or record["stage"] != row.stages[-1].name:
            continue
        if record["verdict"] == Verdict.modified.value:
            continue
        if row.name not in newest or record["date"] > newest[row.name]["date"]:
            newest[row.name] = record
    return newest


def _records(folders: Iterable[Path]) -> Iterator[Record]:
    """Every file that looks like a record; somebody else's JSON is none of our business."""
    wanted = {"row", "stage", "verdict", "measured", "relative_difference", "date", "machine"}
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and wanted <= content.keys():
            yield content


def _cost(cost: Cost | None) -> str:
    return "?" if cost is None else str(cost)


def _standing(row: Row, record: Record | None) -> str:
    if record is None:
        return "not run to the end"
    value, difference = record["measured"], record["relative_difference"]
    shown = "not finite" if value is None else f"{row.metric.show(value)} ({difference:+.1%})"
    machine = record["machine"]
    place = machine["cpu"] if machine["device"] == "cpu" else machine["device_name"]
    return f"{record['verdict']} {shown}, {record['date'][:10]}, {place}"
