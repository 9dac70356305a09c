"""Markdown as GitHub shows it: anchors of headings, cells of tables."""

import re


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def link(title: str) -> str:
    """A link to a heading of the same page, whose title is code."""
    return f"[`{title}`](#{slug(title)})"


def cell(text: str) -> str:
    """Text for a table: `None` is what the user types as null, and nothing is HTML or emphasis."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "\\|"))
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"\bNone\b", "`null`", parts[index].replace("<", "&lt;"))
        parts[index] = parts[index].replace("*", "\\*")
    return "".join(parts)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
