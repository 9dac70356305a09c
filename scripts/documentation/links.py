"""Links between pages: whether what a page points to is there."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from documentation.markdown import slug

_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?: \"[^\"]*\")?\)")
_CODE = re.compile(r"`[^`]*`")


def dead_links(page: Path) -> list[str]:
    """`line: target` of each relative link or picture whose file or heading is not there."""
    dead = []
    for number, line in _prose(page):
        # Code inside a link's text is text; a link inside code is none.
        for match in _LINK.finditer(_CODE.sub("", line)):
            path, _, anchor = unquote(match["target"]).partition("#")
            if re.match(r"\w+:", path):
                continue
            target = page.parent / path if path else page
            anchored = anchor and target.suffix == ".md"
            if not target.exists() or (anchored and anchor not in anchors(target)):
                dead.append(f"{number}: {match['target']}")
    return dead


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = (line.lstrip("#").strip() for _, line in _prose(page) if re.match(r"#+ ", line))
    return {slug(title) for title in titles}


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines outside of fenced blocks."""
    fence = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        mark = re.match(r" *(`{3,}|~{3,})", line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            yield number, line
