"""The comparison as Markdown."""

from typing import Any

NONE = "n/a"


def render(peers: dict[str, Any]) -> str:
    """What `docs/reliability/peers.json` holds: what was compared, and a line for each question."""
    programs: dict[str, Any] = peers["programs"]
    lines = [f"- **{known['title']}**: {_versions(known)}" for known in programs.values()]
    machine = ", ".join(f"{name} {value}" for name, value in peers["hardware"].items())
    lines += ["", f"{peers['date']}, {machine}:", "", f"    {peers['command']}", ""]
    lines.append(f"| fault | asked | {' | '.join(p['title'] for p in programs.values())} |")
    lines.append(f"|---|---|{'---|' * len(programs)}")
    for entry in peers["rows"].values():
        lines += _row(entry, list(programs))
    return "\n".join(lines) + "\n"


def _versions(known: dict[str, Any]) -> str:
    what = ", ".join(f"{name} {value}" for name, value in known["versions"].items())
    return f"{what}. {known['about']}"


def _row(entry: dict[str, Any], programs: list[str]) -> list[str]:
    """A line for each question, and one for what was seen."""
    cells = [entry["cells"].get(key, {"not_applicable": "not measured"}) for key in programs]
    lines = []
    for number, (ask, sentence) in enumerate(entry["asks"].items()):
        title = entry["fault"] if number == 0 else ""
        lines.append(_line(title, sentence, [_counted(cell, ask, number) for cell in cells]))
    for name, words in (("steps_lost", "steps lost, median / most"),
                        ("weights_moved", "a weight moved by, at most")):  # fmt: skip
        if any(name in cell.get("measures", {}) for cell in cells):
            lines.append(_line("", words, [_measured(cell, name) for cell in cells]))
    if any(cell.get("seen") for cell in cells):
        lines.append(_line("", "seen", [_seen(cell) for cell in cells]))
    return lines


def _line(title: str, sentence: str, cells: list[str]) -> str:
    return f"| {title} | {sentence} | {' | '.join(cells)} |"


def _counted(cell: dict[str, Any], ask: str, number: int) -> str:
    """How many repetitions held, of those in which the question arose."""
    if "not_applicable" in cell:
        return cell["not_applicable"] if number == 0 else NONE
    held, tried = cell["held"][ask]
    return f"{held} / {tried}" if tried else NONE


def _measured(cell: dict[str, Any], name: str) -> str:
    found = cell.get("measures", {}).get(name)
    if found is None:
        return NONE
    if name == "steps_lost":
        return f"{found['median']:.0f} / {found['most']:.0f}"
    return f"{found['most']:.1g}"


def _seen(cell: dict[str, Any]) -> str:
    """What happened, with how often where that was more than once."""
    words = [f"{what} ({n} times)" if n > 1 else what for what, n in cell.get("seen", {}).items()]
    return "; ".join(words) or NONE
