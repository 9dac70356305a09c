"""The README stays true where a test can hold it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_tree_lists_every_module() -> None:
    listed = (ROOT / "README.md").read_text().partition("src/lm/\n")[2].split("```")[0]
    shown = {line.split()[0] for line in listed.splitlines() if line.strip()}
    modules = {path.name for path in (ROOT / "src/lm").rglob("*.py")} - {"__init__.py"}
    assert modules - shown == set()
