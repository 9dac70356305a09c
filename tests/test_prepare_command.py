"""`lm prepare`: what it says, and that `lm train` finds what it made."""

import json
from pathlib import Path

import pytest

from lm.cli import main
from lm.commands.start import Start, corpus_of
from lm.config import TrainConfig, compose, parse
from lm.data import prepare as prepare_module

TEXT = b"a cat sat on the mat\nthe dog saw the cat\n" * 200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_bytes(TEXT)
    return tmp_path


def test_what_is_prepared_is_found_by_train(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = ["data=text", "data.path=text.txt", "tokenizer=word", "runtime.cache=cache"]
    assert main(["prepare", *groups]) == 0
    said = capsys.readouterr().out
    assert "text: word tokenizer, 10 tokens\n" in said
    assert "train  2,340 tokens  7,380 bytes  0 unknown  shards: 1" in said
    assert "MB/s with at most" in said
    assert main(["prepare", *groups, "workers=2"]) == 0
    assert "all of it was prepared before" in capsys.readouterr().out
    monkeypatch.setattr(prepare_module, "encode_split", None)
    composed = compose("train", groups)
    config = parse(composed, TrainConfig)
    compute = config.runtime.build()
    start = Start(config, composed, compute, corpus_of(config), config.tokenizer)
    assert len(start.load_data().stores["train"]) == 2_340


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["workers=0"], 2, "workers must be >= 1, got 0"),
        (["data.path=bad.gz"], 3, "compressed files are not cut, and 1 are too few"),
        (
            ["data.train=bad.jsonl", "data.valid=text.txt", "data.test=text.txt"],
            3,
            "bad.jsonl: line 1 has no text in 'text'",
        ),
    ],
)
def test_mistakes_are_told(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    (folder / "bad.gz").write_bytes(TEXT)
    (folder / "bad.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    given = {"data.path=text.txt"} if not any("data." in text for text in arguments) else set()
    assert main(["prepare", "data=text", *given, "runtime.cache=cache", *arguments]) == code
    assert said in capsys.readouterr().err
    assert not list(folder.glob("cache/tokens/*"))
