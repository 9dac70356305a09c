"""The documentation stays true where a test can hold it; what it runs is tested elsewhere."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


def test_the_readme_tree_is_that_of_the_code() -> None:
    import readme_tree

    readme = readme_tree.README.read_text(encoding="utf-8")
    assert readme == readme_tree.replaced(readme), "run scripts/readme_tree.py"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_says_what_it_is(page: str) -> None:
    from documentation.blocks import blocks_of, commands_of

    for block in blocks_of(ROOT / page, Path(page)):
        if block.runs and block.language != "python":
            said = " ".join(command.text for command in commands_of(block))
            assert not re.search(r"<[a-z][^<>]*>", said), f"{block.place}: nobody can type that"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str) -> None:
    from documentation.links import dead_links

    assert not list(dead_links(ROOT / page)), page


def test_pages_are_run_after_the_installation_that_the_readme_gives() -> None:
    from documentation.environment import INSTALL
    from documentation.running import pages

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in INSTALL:
        assert re.search(rf"^{re.escape(command)}( +#.*)?$", readme, re.MULTILINE), command
    assert {Path("README.md"), Path("docs/howto/resume.md")} <= set(pages())


def test_the_readme_has_no_other_cell_than_the_page_about_it() -> None:
    def cells(page: str) -> set[str]:
        text = (ROOT / page).read_text(encoding="utf-8")
        return set(re.findall(r"```python[^\n]*\n(# my_cell\.py\n.*?)```", text, re.DOTALL))

    assert cells("README.md") <= cells("docs/howto/own_cell.md") != set()


def page_of(folder: Path, *lines: str) -> Path:
    page = folder / "page.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["```", "lm train", "```"], "page.md:1: a block has to say what it is"),
        (["text", "```bash", "```"], "page.md:2: a block has to say what it is"),
        (["```sh", "lm train"], "page.md:1: the block is not closed"),
        (["```sh slow", "```"], "page.md:1: sh takes no slow"),
        (["```sh exit=no", "```"], "page.md:1: exit has to be a number, got 'no'"),
        (["```text file=../x", "```"], "file has to lie in the page's folder, got '../x'"),
        (["```python", "def f(:", "```"], "page.md:1: no complete program: "),
        (["```console", "lm train", "```"], "page.md:1: a console block begins with `$ <command>`"),
    ],
)
def test_a_block_that_is_not_understood_is_refused_with_its_place(
    lines: Sequence[str], message: str, tmp_path: Path
) -> None:
    from documentation.blocks import PageError, blocks_of

    with pytest.raises(PageError) as refused:
        blocks_of(page_of(tmp_path, *lines), Path("page.md"))
    assert message in str(refused.value)


def test_a_page_is_run_block_after_block_in_one_folder(tmp_path: Path) -> None:
    from documentation.environment import existing
    from documentation.running import run_page

    page = page_of(
        tmp_path,
        "```text file=a/word.txt", "one", "```",
        "```sh", "cat a/word.txt > copy", "```",
        "- in a list:",
        "  ```console exit=3", "  $ cat copy \\", "    a/word.txt; (exit 3)",
        "  one", "  …", "  o…e", "  ```",
        "````python", "assert open('copy').read() == 'one\\n'", "````",
        "```sh skip='never ends'", "exit 9", "```",
    )  # fmt: skip
    environment = existing(Path("/usr/bin"), tmp_path)
    done = list(run_page(page, tmp_path / "work", environment))
    assert [(each.block.line, each.block.skip) for each in done] == [
        (4, None), (8, None), (15, None), (18, "never ends"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (["```sh", "true", "false | true", "echo no", "```"], "exit code 1 instead of 0"),
        (["```sh exit=2", "true", "```"], "exit code 0 instead of 2"),
        (["```console exit=1", "$ false", "$ false", "```"], "exit code 1 instead of 0\nfalse\n"),
        (["```console", "$ printf 'b\\na\\n'", "a", "b", "```"], "did not say 'b'"),
        (["```sh", "echo $UNSET_BY_ANYONE", "```"], "UNSET_BY_ANYONE: unbound variable"),
    ],
)
def test_a_command_that_does_something_else_ends_the_run_with_its_place(
    block: Sequence[str], message: str, tmp_path: Path
) -> None:
    from documentation.environment import existing
    from documentation.running import BlockError, run_page

    page = page_of(tmp_path, "# A page", *block)
    with pytest.raises(BlockError) as failed:
        list(run_page(page, tmp_path / "work", existing(Path("/usr/bin"), tmp_path)))
    assert str(failed.value).startswith(f"{page}:2: ")
    assert message in str(failed.value)


def test_dead_links_are_found_outside_of_code(tmp_path: Path) -> None:
    from documentation.links import dead_links

    (tmp_path / "other.md").write_text("## A `b`: c, d\n", encoding="utf-8")
    page = page_of(
        tmp_path,
        "# The page", "[there](other.md) [here](#the-page) [deep](other.md#a-b-c-d)",
        "[no](nowhere.md) and ![picture](x.png \"a title\")", "[no anchor](other.md#e)",
        "`[code](gone.md)` [web](https://example.org/x)", "```text", "[shown](gone.md)", "```",
        "[`code` in a link](gone.md)",
    )  # fmt: skip
    assert dead_links(page) == ["3: nowhere.md", "3: x.png", "4: other.md#e", "9: gone.md"]
