"""`lm score` as a user calls it: totals of `lm evaluate`, pipes, files, learning, mistakes."""

import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console import error, tree

import lm
from lm.cli import main
from lm.config import ScoreConfig
from lm.errors import ConfigError, DataError
from lm.evaluation.adaptation import DynamicConfig
from lm.scoring.output import Format
from lm.scoring.scorer import Carry
from lm.scoring.units import Level

TEXT = "".join(
    f"the {noun} {verb} the {thing} .\n"
    for _ in range(20)
    for noun in ("cat", "dog", "bird")
    for verb in ("sees", "likes")
    for thing in ("mat", "log", "tree")
)
RECIPE = [
    "data=text", "data.train=text.txt", "data.valid=read.txt", "data.test=read.txt",
    "tokenizer=word", "model.embedding_size=8",
    "model.hidden_size=10", "trainer.batch_size=4", "trainer.window=12", "trainer.max_steps=12",
    "trainer.valid_every=12", "trainer.valid_streams=2", "trainer.sample_tokens=0",
    "trainer.test=false", "schedule=constant", "optim.lr=0.01", "runtime.device=cpu",
]  # fmt: skip
READ = "the cat sees the zebra .\n\nthe dog  likes a tree .\nthe bird sees\n" * 4
LEARNING = ["dynamic.lr=0.1", "dynamic.decay=0.01", "dynamic.segment=7"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `a` and the text read.txt."""
    folder = tmp_path_factory.mktemp("score")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(TEXT)
        Path("read.txt").write_text(READ)
        assert main(["train", *RECIPE, "name=a"]) == 0
        (run,) = Path("runs", "a").iterdir()
        run.rename("a")
    return folder


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def score(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[dict[str, Any]]:
    """The rows of `lm score run=a input=read.txt`."""
    capsys.readouterr()
    keys = {override.partition("=")[0] for override in overrides}
    usual = [item for item in ("input=read.txt",) if item.partition("=")[0] not in keys]
    assert main(["score", "run=a", "format=jsonl", *usual, *overrides]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def evaluate(*overrides: str) -> dict[str, Any]:
    """The numbers of the only or the dynamic method of `lm evaluate` on read.txt."""
    assert main(["evaluate", "run=a", "output=scores.json", *overrides]) == 0
    content: dict[str, Any] = json.loads(Path("scores.json").read_text())
    return content["test"] if len(overrides) == 0 else content["test"]["methods"]["dynamic"]


def nats(row: dict[str, Any]) -> float:
    return float(row["surprisal"]) * 0.6931471805599453


def test_totals_are_those_of_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = evaluate()
    (total,) = score(capsys, "level=document")
    assert total["tokens"] == wanted["num_tokens"]
    assert total["perplexity"] == pytest.approx(wanted["perplexity"], rel=1e-6)
    assert nats(total) / total["tokens"] == pytest.approx(wanted["loss"], abs=1e-6)
    words = score(capsys, "columns=[surprisal,unknown]")
    assert words[0]["surprisal"] is None
    assert sum(map(nats, words[1:])) / total["tokens"] == pytest.approx(wanted["loss"], abs=1e-6)
    assert sum(row["unknown"] for row in words) == total["unknown"] == 8
    assert main(["score", "run=a", "input=read.txt"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("sentence\tword\ttext\tstart\tend\ttokens\tsurprisal\tentropy\t")
    assert "8 tokens (10.5%) are unknown to the model: their surprisal is that of <unk>" in said.err


@pytest.mark.parametrize(("rule", "lr"), [("sgd", 0.1), ("rms", 1e-3)])
def test_an_adaptive_model_reads_as_dynamic_evaluation_does(
    rule: str, lr: float, capsys: pytest.CaptureFixture[str]
) -> None:
    learning = [*LEARNING, f"dynamic.rule={rule}", f"dynamic.lr={lr}"]
    wanted = evaluate("method=dynamic", *learning)
    before = {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}
    rows = score(capsys, "level=token", "adaptive=true", *learning)
    found = sum(map(nats, rows[1:])) / (len(rows) - 1)
    assert found == pytest.approx(wanted["loss"], abs=1e-6)
    assert wanted["to_static"]["difference"] != 0
    assert all(row["entropy"] > 0 for row in rows[1:])
    assert before == {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}


class Pipe(io.RawIOBase):
    """Standard input that gives the next line when all was said about those before."""

    def __init__(self, lines: list[bytes], capsys: pytest.CaptureFixture[str], rows: int) -> None:
        self._lines, self._capsys, self._rows = lines, capsys, rows
        self.said = ""
        self.read_lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self.said += self._capsys.readouterr().out
        assert len(self.said.splitlines()) == self.read_lines * self._rows
        if self.read_lines == len(self._lines):
            return b""
        self.read_lines += 1
        return self._lines[self.read_lines - 1]


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_a_pipe_is_answered_line_by_line(
    state: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("lines.txt").write_text("the cat sees\nthe dog likes\n" * 3)
    whole = score(capsys, "input=lines.txt", f"state={state}")
    pipe = Pipe(Path("lines.txt").read_bytes().splitlines(keepends=True), capsys, rows=4)
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": pipe}))
    assert main(["score", "run=a", "input=-", "format=jsonl", f"state={state}"]) == 0
    rows = [json.loads(line) for line in pipe.said.splitlines()]
    for found, wanted in zip(rows, whole, strict=True):
        assert found == {k: pytest.approx(v, abs=2e-5) for k, v in wanted.items()}


def test_a_file_is_whole_or_absent(capsys: pytest.CaptureFixture[str]) -> None:
    rows = score(capsys, "state=reset")
    assert score(capsys, "state=reset", "output=rows.jsonl") == []
    assert [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()] == rows
    kept = Path("rows.jsonl").read_bytes()
    Path("bad.txt").write_bytes(b"u 1 the\n" * 1100 + b"u\n")
    before = tree()
    command = ["score", "run=a", "input=bad.txt", "format=nbest", "output=rows.jsonl"]
    assert main(command) == 3
    assert "bad.txt, line 1101 has no score" in error(capsys)
    assert (tree(), Path("rows.jsonl").read_bytes()) == (before, kept)


def test_python_gives_the_rows_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = lm.load("a")
    for level, state in (("word", "carry"), ("sentence", "reset"), ("document", "reset")):
        rows = score(capsys, f"level={level}", f"state={state}")
        found = loaded.surprisal(READ, level=level, state=state)
        for row, wanted in zip(found, rows, strict=True):
            close = {name: pytest.approx(value, abs=2e-5) for name, value in wanted.items()}
            assert {name: row[name] for name in wanted} == close
    tokens, scores = loaded.score("the cat sees")
    assert tokens == ["cat", "sees"]
    found = loaded.surprisal("the cat sees", level="token")
    assert [nats(row) for row in found[1:]] == pytest.approx(scores.tolist(), abs=1e-5)
    with pytest.raises(ConfigError, match="level must be one of token, word"):
        loaded.surprisal("the", level="words")
    with pytest.raises(DataError, match="has no tokens"):
        loaded.surprisal(" ")


def test_the_best_hypotheses_come_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lists.txt").write_text("u 0 the the cat .\nu -0.1 the cat sees the mat .\nv 1 .\n")
    command = ["score", "run=a", "input=lists.txt", "format=nbest", "best=true"]
    assert main([*command, "weight=0"]) == 0
    header, first, _ = capsys.readouterr().out.splitlines()
    assert header == "id\tcombined\tscore\tlog_prob\twords\tunknown\ttext"
    assert first.startswith("u\t0.000000\t0.000000\t-")
    assert first.endswith("\t4\t0\tthe the cat .")
    assert main([*command, "weight=0", "word_bonus=1"]) == 0
    assert "the cat sees the mat ." in capsys.readouterr().out


@pytest.fixture
def _files() -> Iterator[None]:
    Path("empty.txt").write_bytes(b"")
    Path("blank.txt").write_bytes(b"  \t ")
    yield
    for name in ("empty.txt", "blank.txt"):
        Path(name).unlink()


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["input=empty.txt"], 3, "empty.txt has no tokens"),
        (["input=blank.txt", "state=reset"], 3, "blank.txt has no tokens"),
        (["input=missing.txt"], 3, "missing.txt"),
        (["input=."], 3, "cannot read ."),
        (["run=missing"], 4, "missing"),
        (["colums=[text]"], 2, "nearest: columns"),
        (["columns=[surprise]"], 2, "columns must be one of sentence, word, text"),
        (["level=line"], 2, "level must be one of token, word, sentence, document"),
        (["adaptive=true"], 2, "adaptive=true needs dynamic.lr"),
        (["output=read.txt"], 2, "output=read.txt is the input"),
        (["output=text.txt/rows"], 6, "cannot create text.txt"),
    ],
)
def test_a_mistake_gives_its_code_one_line_and_leaves_nothing(
    overrides: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree()
    keys = {override.partition("=")[0] for override in overrides}
    usual = [item for item in ("run=a", "input=read.txt") if item.partition("=")[0] not in keys]
    assert main(["score", *usual, *overrides]) == code
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert tree() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": []}, "len(columns) must be >= 1"),
        ({"columns": ["rank"], "level": Level.sentence}, "columns must be one of sentence, text"),
        ({"window": 0}, "window must be >= 1"),
        ({"weight": math.nan}, "weight must be a finite number"),
        ({"best": True}, "best has no effect with format=tsv"),
        ({"format": Format.nbest, "level": Level.token}, "level has no effect with format=nbest"),
        ({"format": Format.nbest, "begin": True}, "begin has no effect with format=nbest"),
        ({"dynamic": DynamicConfig(lr=1)}, "dynamic has no effect with adaptive=false"),
        ({"adaptive": True, "dynamic": DynamicConfig(lr=1)}, "adaptive=true needs dynamic.decay"),
        ({"adaptive": True, "window": 9}, "window has no effect with adaptive=true"),
        ({"adaptive": True, "state": Carry.reset}, "learns from line to line"),
        ({"state": Carry.reset, "begin": False}, "begin=false asks for none"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ScoreConfig(run="r", input="i", **fields)


_MEASURED = """
import resource, sys
from lm.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
raise SystemExit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("state", ["carry", "reset"])
def test_memory_does_not_grow_with_the_text(state: str) -> None:
    """Ten megabytes take what one takes, and say as much about each."""
    megabytes = {}
    for size in (1, 10):
        copies = size * (1 << 20) // len(TEXT)
        Path("long.txt").write_text(TEXT * copies)
        command = [
            "score", "run=a", "input=long.txt", "output=long.tsv", f"state={state}",
            "runtime.threads=1", "runtime.device=cpu",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *command],
            env={**os.environ, "PYTHONPATH": str(Path(lm.__file__).parents[1])},
            check=True,
            capture_output=True,
            text=True,
        )
        megabytes[size] = int(done.stdout)
        with Path("long.tsv").open() as rows:
            assert sum(1 for _ in rows) == 1 + copies * (len(TEXT.split()) + TEXT.count("\n"))
    assert megabytes[10] < megabytes[1] + 60, megabytes
