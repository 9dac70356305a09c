"""What the tests' Hydra keeps is what it would make anew, and no longer than that is so."""

from dataclasses import dataclass
from pathlib import Path

import composing
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lm.config import compose
from lm.models.lstm import LSTMConfig

COMMANDS = [
    ("train", ["optim=sgd", "optim.lr=3", "experiment=ptb_small"]),
    ("train", ["model=gru", "optim=sgd", "optim.lr=3"]),
    ("train", ["+lr_scales.head=2", "name=x", "debug=smoke"]),
    ("evaluate", ["run=runs/x", "data=text"]),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def content(config: DictConfig) -> tuple[str, list[object]]:
    """All of a configuration: its values, and the schemas that they are held to."""
    return OmegaConf.to_yaml(config), [OmegaConf.get_type(config, str(key)) for key in config]


def test_it_is_what_hydra_makes_however_often_and_whatever_is_done_to_it() -> None:
    with pytest.MonkeyPatch.context() as patch:
        composing.forgo(patch)
        anew = [content(compose(*command)) for command in COMMANDS]
    for _ in range(2):
        kept = [compose(*command) for command in COMMANDS]
        assert [content(config) for config in kept] == anew
        for config in kept:
            OmegaConf.set_struct(config, False)
            config.seed = 99
            config.clear()


def test_another_schema_of_that_name_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(kw_only=True, slots=True)
    class Changed(LSTMConfig):
        other: int = 5

    before = compose("train", ["model=lstm"])
    schemas = ConfigStore.instance().repo["schema"]["model"]
    monkeypatch.setitem(schemas, "lstm.yaml", schemas["lstm.yaml"])  # put back at the end
    ConfigStore.instance().store("lstm", Changed, group="schema/model")
    assert compose("train", ["model=lstm"]).model.other == 5
    monkeypatch.undo()
    assert compose("train", ["model=lstm"]) == before


def test_a_file_of_ones_own_may_change() -> None:
    folder = Path("configs/experiment")
    folder.mkdir(parents=True)
    for seed in (3, 4):
        (folder / "mine.yaml").write_text(f"# @package _global_\nseed: {seed}\n")
        assert compose("train", ["experiment=mine"]).seed == seed
