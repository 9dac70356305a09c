"""The README stays true where a test can hold it."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_readme_tree_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    import readme_tree

    readme = readme_tree.README.read_text(encoding="utf-8")
    assert readme == readme_tree.replaced(readme), "run scripts/readme_tree.py"
