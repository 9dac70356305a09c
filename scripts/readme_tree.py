"""Write the tree of `src/lm` in README.md anew: one line per module, from its docstring.

python scripts/readme_tree.py
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "src/lm/\n", "tests/  "
COLUMN, WIDTH = 28, 122


def tree() -> str:
    """The lines below `src/lm/`, files before folders."""
    return "".join(_lines(ROOT / "src/lm", 1))


def replaced(readme: str) -> str:
    """The README with the tree as it should be."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + begin + tree() + end + after


def _lines(folder: Path, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _line(f"{indent}{path.name}", _summary(path))
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            yield _line(f"{indent}{path.name}/", _summary(path / "__init__.py"))
            yield from _lines(path, depth + 1)


def _summary(path: Path) -> str:
    document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary = document.split("\n\n")[0].replace("\n", " ")
    if len(summary) + COLUMN > WIDTH:
        summary = summary[: WIDTH - COLUMN - 2].rpartition(" ")[0] + " …"
    return summary.rstrip(".")


def _line(name: str, summary: str) -> str:
    return f"{name:<{COLUMN - 1}} {summary}".rstrip() + "\n"


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
