"""`lm compare` as a user calls it."""

import json
from pathlib import Path

import pytest
from console import error, tree
from run_folders import make_run, write_metrics

from lm.cli import main
from lm.config import compose, dump, flat_config, load_config
from lm.config.fields import flatten, plain
from lm.errors import CheckpointError


@pytest.fixture(autouse=True)
def _two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, loss in (("one", 2.0), ("two, (odd)", 1.0)):
        run = make_run(Path("runs/sweep", name), {"optim": {"lr": loss / 10}}, loss=loss)
        write_metrics(run, {"step": 1, "tokens": 9, "valid/loss": loss})


def test_the_table_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 0
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["run", "two, (odd)", "one"]


def test_runs_are_positions_lists_and_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["runs/sweep/two, (odd)", "format=csv", "runs=[runs/sweep/o*]", "sort=-valid_loss"]
    assert main(["compare", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run,optim.lr,status,")
    assert [line.rpartition(",done,")[0] for line in lines[1:]] == ["one,0.2", '"two, (odd)",0.1']


def test_table_and_picture_go_to_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "runs", "output=table.json", "plot=curves.png"]) == 0
    assert len(json.loads(Path("table.json").read_text())["runs"]) == 2
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == ""


def test_a_run_that_cannot_be_read_is_named_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("runs/sweep/one/config.yaml").write_text("a: &x [1]\nb: *x\n")
    assert main(["compare"]) == 0
    said = capsys.readouterr()
    assert "left out: runs/sweep/one/config.yaml uses YAML aliases" in said.err
    assert len(said.out.splitlines()) == 2
    assert main(["compare", "runs/sweep/one"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 4, "there is no nowhere"),
        (["runs", "sort=valid_los"], 2, "nearest: valid_loss"),
        (["runs", "srot=valid_loss"], 2, "nearest: sort"),
        (["runs", "plot=curves.gif"], 2, "plot must end in one of .png, .svg, .pdf"),
        (["runs", "format=xml"], 2, "format"),
        (["runs", "plot=a.png", "y=bits_per_byte"], 4, "there is no bits_per_byte to draw"),
        (["runs", "-m"], 2, "lm compare shows runs side by side, once"),
        (["runs", "output=runs/sweep/one/config.yaml/x"], 6, "not a writable folder"),
    ],
)
def test_mistakes_have_their_codes_and_leave_nothing(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree()
    assert main(["compare", *arguments]) == code
    assert message in error(capsys)
    assert tree() == before


def test_without_matplotlib_a_picture_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["compare", "plot=curves.png"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


# Configurations, read fast


def test_the_fast_reader_sees_what_the_strict_one_sees(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump(compose("train", ["model=mogrifier", "optim.lr=1e-4", "freeze=[a,b]"])))
    schemas = {"model": "mogrifier", "data": "torch_source", "tokenizer": "bpe", "optim": "adamw"}
    found = flat_config(path)
    assert schemas.items() <= found.items()
    strict = flatten(plain(load_config(path)))
    assert {name: found[name] for name in strict} == strict


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schemas: {}\na: !!python/name:os.system x\n", "YAML tag"),
        ("schemas: {}\na: 1:" + "59:" * 30 + "59\n", "digits"),
        ("schemas: {}\na: " + "[" * 40 + "]" * 40 + "\n", "deeper"),
        ("schemas: {}\na: " + "x" * (1 << 16) + "\n", "larger than"),
        ("a: 1\n", "names no schemas"),
        ("[1]\n", "is not a mapping"),
    ],
)
def test_the_fast_reader_has_the_strict_ones_limits(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        flat_config(path)


def test_a_component_without_fields_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("schemas: {tokenizer: byte}\nseed: 1\ntokenizer: {}\n")
    assert flat_config(path) == {"tokenizer": "byte", "seed": 1}


def test_the_environment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    path = tmp_path / "config.yaml"
    path.write_text("schemas: {}\ndata: {path: '${oc.env:SECRET}'}\n")
    assert flat_config(path) == {"data.path": "${oc.env:SECRET}"}
