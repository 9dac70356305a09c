"""The parts of a checkpoint have to belong together, and it may not say where things lie here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign import VOCABULARY, good, saved
from stranger import checkpoint_of, copied, good_run, seal

import lm
from lm.cli import main
from lm.config import TrainConfig, compose, parse, resume_config, saved_config
from lm.errors import CheckpointError

LIMITS = ["runtime.device=cpu", "runtime.threads=1", "runtime.kernels=torch"]
Edit = Callable[[Any], object]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return copied(good_run(), tmp_path / "run")


def edit(run: Path, name: str, how: Edit) -> None:
    """Change a file of the checkpoint, and the manifest with it."""
    path = checkpoint_of(run) / name
    is_yaml = name == "config.yaml"
    content = (yaml.safe_load if is_yaml else json.loads)(path.read_text())
    how(content)
    path.write_text((yaml.safe_dump if is_yaml else json.dumps)(content))
    seal(checkpoint_of(run))


def another_cell(config: dict[str, Any]) -> None:
    """An sLSTM has the names and shapes of an LSTM."""
    config["schemas"]["model"] = "slstm"
    for name in ("num_biases", "chrono_max"):
        del config["model"][name]


def another_order(tokenizer: dict[str, Any]) -> None:
    words = tokenizer["words"]
    words[3], words[4] = words[4], words[3]


@pytest.mark.parametrize(
    ("name", "how", "part"),
    [
        ("config.yaml", another_cell, "architecture"),
        ("tokenizer.json", another_order, "tokenizer"),
    ],
)
def test_parts_of_other_runs_are_refused_by_name(
    run: Path, name: str, how: Edit, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, name, how)
    for arguments in (["evaluate", f"run={run}"], ["train", f"resume={run}"]):
        assert main([*arguments, *LIMITS]) == 4
        assert f"lm: error: the {part} is not the one" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=f"the {part} is not the one"):
        lm.load(run)


def test_a_checkpoint_without_fingerprints_is_believed(run: Path) -> None:
    def older(state: dict[str, Any]) -> None:
        del state["architecture"], state["tokenizer"]

    edit(run, "state.json", older)
    assert lm.load(run).generate("the", num_tokens=3) == lm.load(good_run()).generate(
        "the", num_tokens=3
    )
    assert main(["train", f"resume={run}", *LIMITS]) == 0


def test_imported_weights_have_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(saved(good()))
    Path("vocabulary.txt").write_text(VOCABULARY)
    assert main(["import", "weights.pt", "vocabulary=vocabulary.txt", "model=lstm"]) == 0
    (run,) = Path("runs/imported").iterdir()
    state = json.loads((checkpoint_of(run) / "state.json").read_text())
    loaded = lm.load(run)
    assert state["tokenizer"] == loaded.tokenizer.fingerprint
    assert state["architecture"] == loaded.config.model.fingerprint


def test_the_cache_is_never_a_checkpoints_to_name(run: Path) -> None:
    edit(run, "config.yaml", lambda config: config["runtime"].update(cache="/somewhere"))
    path = checkpoint_of(run) / "config.yaml"
    config = saved_config(path.read_text(), path)
    for told, expected in (([], None), (["runtime.cache=/mine"], "/mine")):
        resumed = resume_config(config, compose("train", told), told)
        assert parse(resumed, TrainConfig).runtime.cache == expected


@pytest.mark.parametrize("name", ["train.log", "lock", "metrics.jsonl", "checkpoints", "new"])
def test_a_run_with_links_is_not_resumed(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = run.parent / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.write_text("mine")
    before = outside.stat().st_mtime_ns
    (run / name).symlink_to(outside)
    assert main(["train", f"resume={run}", *LIMITS]) == 4
    assert f"{name} is a link" in capsys.readouterr().err
    assert outside.stat().st_mtime_ns == before


def test_what_a_file_says_is_shown_on_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, "state.json", lambda state: state["progress"].update({"a\nb\x1b[2J": 1}))
    assert main(["train", f"resume={run}", *LIMITS]) == 4
    said = capsys.readouterr().err
    assert r"a\nb\x1b[2J" in said
    assert len(said.splitlines()) == 2
