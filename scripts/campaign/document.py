"""docs/reliability.md, from the records of the campaign and nothing else."""

from collections.abc import Iterator
from pathlib import Path

from campaign.records import Record, load

FAMILIES = "RDCSNILX"
SECONDS = (
    ("recovery_seconds", "from resuming to beyond the fault's step", 2),
    ("restart_seconds", "from kill -9 of one of two processes to beyond its step, restarted", 1),
    ("leaving_seconds", "from a second SIGINT to the end", 2),
    ("standstill_seconds", "to the end of a job of which one process stands still, waiting 3", 1),
)
EXECUTED = "payloads not executed"


def write(folder: Path) -> None:
    """Write the document beside the folder of the records."""
    rows = dict(sorted(load(folder / "rows.json").items(), key=lambda item: _place(item[0])))
    lines = [*_head(), *_figures(rows, load(folder / "costs.json")), *_rows(rows)]
    for name, section in (("soak", _soak), ("costs", _costs), ("peers", _peers)):
        found = load(folder / f"{name}.json")
        if found:
            lines += section(found)
    text = "\n".join([*lines, *_tail()]) + "\n"
    folder.with_name("reliability.md").write_text(text, encoding="utf-8")


def _head() -> list[str]:
    return [
        "# Reliability",
        "",
        "What was done to runs, checkpoints, configurations and texts, and what came of it.",
        "Written by `scripts/fault_campaign.py`; every figure comes from the records beside this",
        "file in `reliability/`. The tests run the same rows with fewer repetitions",
        "(`tests/faults/test_campaign.py`), and with as many when asked for (`-m slow`).",
        "",
    ]


def _place(key: str) -> tuple[int, int, str]:
    """Where a row stands: by what it is about, and by number."""
    return FAMILIES.index(key[0]), int("".join(filter(str.isdigit, key))), key


def _figures(rows: dict[str, Record], costs: Record) -> Iterator[str]:
    yield from ("## Figures", "", "| | |", "|---|--:|")
    for figure in dict.fromkeys(row["figure"] for row in rows.values()):
        chosen = [row for row in rows.values() if row["figure"] == figure]
        held, tried = (sum(row[key] for row in chosen) for key in ("held", "tried"))
        if figure == EXECUTED:
            yield f"| payloads executed | {tried - held:,} of {tried:,} |"
        else:
            yield f"| {figure} | {held:,} of {tried:,} |"
    for name, title, digits in SECONDS:
        found = [row["measures"][name] for row in rows.values() if name in row.get("measures", {})]
        if found:
            middle = max(found, key=lambda measured: measured["count"])
            p50, p99 = (f"{middle[key]:.{digits}f}" for key in ("p50", "p99"))
            yield f"| seconds {title}, median, p99 | {p50}, {p99} |"
    lost = [
        (row["measures"]["steps_lost"]["max"], key)
        for key, row in rows.items()
        if "steps_lost" in row.get("measures", {})
    ]
    for row in rows.values():
        if "elastic_difference" in row.get("measures", {}):
            most = row["measures"]["elastic_difference"]["max"]
            yield f"| a weight's largest difference after other numbers of processes | {most:.1e} |"
    if lost:
        most, key = max(lost)
        yield f"| most steps done again after kill -9, saving every 7 ({key}) | {most:.0f} |"
    for name, found in costs.get("variants", {}).items():
        if name.startswith("saves"):
            share, every = found["stall_share"]["median"], costs["save_every"]
            yield f"| time in which training waits, {name}, every {every} steps | {share:.1%} |"
    yield ""


def _rows(rows: dict[str, Record]) -> Iterator[str]:
    yield from (
        "## Rows",
        "",
        "| | fault | what must hold | held |",
        "|---|---|---|--:|",
    )
    for key, row in rows.items():
        held = f"{row['held']:,} of {row['tried']:,}"
        if row["held"] != row["tried"]:
            held = f"**{held}**"
        yield f"| {key} | {row['fault']} | {row['criterion']} | {held} |"
    yield ""
    for words, keys in _grouped(rows).items():
        yield f"{', '.join(keys)}: {words}.  "
    yield ""


def _grouped(rows: dict[str, Record]) -> dict[str, list[str]]:
    """Keys by the circumstances that their rows were run in."""
    found: dict[str, list[str]] = {}
    for key, row in rows.items():
        found.setdefault(f"seed {row['seed']}, {_when(row)}", []).append(key)
    return found


def _when(record: Record) -> str:
    return (
        f"{record['date']}, commit {record['commit']}, torch {record['torch']},"
        f" Python {record['python']}, {record['cpu']}"
    )


def _soak(soak: Record) -> Iterator[str]:
    growth = soak["growth"]
    share = 100 * soak["save_seconds"] / soak["run_seconds"]
    yield from (
        "## A long run",
        "",
        f"{soak['steps']:,} steps in one process, {soak['run_seconds']:,.0f} s, with a checkpoint",
        "in the background every 200 steps and a validation with a sample every 2,000. Growth is",
        "the median of the last quarter over that of the second:",
        "",
        "| | growth |",
        "|---|--:|",
        f"| resident memory | {100 * growth['resident_mib']:+.1f} % |",
        f"| open files | {100 * growth['open_files']:+.1f} % |",
        f"| threads | {100 * growth['threads']:+.1f} % |",
        f"| step time | {100 * growth['milliseconds_per_step']:+.1f} % |",
        "",
        f"Training stood still for saving during {share:.2f} % of the time. {_when(soak)}.",
        "",
        "![memory, files and step time](reliability/soak.png)",
        "",
    )


def _costs(costs: Record) -> Iterator[str]:
    variants: dict[str, dict[str, dict[str, float]]] = costs["variants"]
    size = max(found["checkpoint_bytes"]["most"] for found in variants.values()) / 2**20
    yield from (
        "## What safety costs",
        "",
        f"The default model ({size:.0f} MiB a checkpoint), {costs['steps']} steps, saved every"
        f" {costs['save_every']}; {costs['rounds']} runs",
        "of each in turn, medians and, because runs differ by more than most of this, ranges. The",
        "stall is the share of the time in which training waited for a save; saving in the",
        "background takes processor time from training besides.",
        "",
        "| | ms per step | range | stall | range |",
        "|---|--:|--:|--:|--:|",
    )
    for name, found in variants.items():
        step, stall = found["milliseconds_per_step"], found["stall_share"]
        steps = f"{step['median']:.1f} | {step['least']:.1f} to {step['most']:.1f}"
        share = f"{stall['median']:.1%} | {stall['least']:.1%} to {stall['most']:.1%}"
        yield f"| {name} | {steps} | {share} |"
    yield from ("", f"{_when(costs)}.", "")


def _peers(peers: Record) -> Iterator[str]:
    from peers.report import render

    yield from ("## The same faults elsewhere", "")
    yield from (render(peers), "")


def _tail() -> list[str]:
    return [
        "## Whether these tests can fail",
        "",
        "`tests/faults/test_broken_builds.py` takes a safeguard away (the recurrent state in a",
        "checkpoint, the fsync, the check of the manifest, the schemas' slots, the list of allowed",
        "components, and more) and expects the row that guards it to report failures. R5 does so",
        "for each state that a checkpoint holds.",
    ]
