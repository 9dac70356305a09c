"""The commands as a user calls them, end to end on a small text."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from console import error, tree
from hydra.core.config_store import ConfigStore
from safetensors.torch import load_file
from torch import nn

import lm
from lm.cli import main
from lm.config import registry
from lm.run_directory import RunDirectory
from lm.runtime.randomness import Noise
from lm.training.step import TrainStep

TEXT = (
    "".join(
        f"{subject} {verb} the {thing} and the {other} .\n"
        for subject in ("a cat", "the dog", "one bird")
        for verb in ("sees", "likes", "has")
        for thing in ("mat", "log", "tree")
        for other in ("hat", "rat", "bat")
    )
    * 4
)
SMALL = [
    "data=text", "data.path=text.txt", "tokenizer=word", "model.embedding_size=12",
    "model.hidden_size=16", "trainer.batch_size=4", "trainer.window=12", "trainer.max_steps=30",
    "trainer.valid_every=10", "trainer.valid_streams=2", "trainer.log_every=5",
    "trainer.sample_tokens=8", "schedule=constant", "optim.lr=0.01", "runtime.device=cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def train(*overrides: str, code: int = 0) -> Path:
    """`lm train` with the small recipe; the newest run directory."""
    keys = {override.partition("=")[0] for override in overrides}
    defaults = [item for item in SMALL if item.partition("=")[0] not in keys]
    assert main(["train", *defaults, *overrides]) == code
    return newest()


def newest() -> Path:
    return max(Path("runs").glob("*/*/"), key=lambda path: path.stat().st_mtime_ns)


def weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    name = (run / "checkpoints" / which).read_text()
    return load_file(run / "checkpoints" / name / "model.safetensors")


def test_a_run_directory_is_complete_and_its_numbers_agree(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("name=first")
    assert run.parent == Path("runs/first")
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "config.yaml", "environment.json", "lock", "metrics.jsonl",
        "overrides.yaml", "summary.json", "tensorboard", "train.log",
    ]  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("done", 30)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
    assert [row["step"] for row in rows if "valid/loss" in row] == [10, 20, 30]
    assert main(["evaluate", f"run={run}", "splits=[test,valid]", "output=scores.json"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["test"]["loss"] == summary["metrics"]["test/loss"]
    assert scores["test"]["num_streams"] == 1
    assert "exact" in capsys.readouterr().out
    versions = json.loads((run / "environment.json").read_text())["versions"]
    assert versions["torch"] == torch.__version__


def test_generate_is_decided_by_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    outputs = []
    for seed in (1, 1, 2):
        capsys.readouterr()
        assert (
            main(["generate", f"run={run}", "prompt=a cat", f"seed={seed}", "num_samples=2"]) == 0
        )
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[0].count("--- sample") == 2
    assert "\na cat" in outputs[0]


def test_the_folder_of_an_experiment_stands_for_its_newest_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("name=a", "trainer.max_steps=4")
    assert main(["evaluate", "run=runs/a"]) == 0
    captured = capsys.readouterr()
    assert f"runs/a: the newest run in it is {run.name}" in captured.err
    assert lm.load("runs/a").path.parents[1] == run
    assert main(["train", "resume=runs/a", "trainer.max_steps=6"]) == 0
    assert f"resuming {run} at step 4" in capsys.readouterr().err
    assert main(["evaluate", "run=runs"]) == 4
    assert "no run or checkpoint at runs" in error(capsys)


def test_load_generates_and_scores() -> None:
    loaded = lm.load(train("trainer.max_steps=60"))
    assert loaded.generate("a cat", num_tokens=5, seed=3) == loaded.generate(
        "a cat", num_tokens=5, seed=3
    )
    tokens, nats = loaded.score("a cat sees the mat")
    assert tokens == ["cat", "sees", "the", "mat"]
    _, swapped = loaded.score("a cat the sees mat")
    assert nats.sum() < swapped.sum()


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send a real signal to this process in the middle of a step."""
    whole = TrainStep.__call__

    def call(self: TrainStep, *arguments: object, **named: object) -> object:
        if named["step"] == step - 1:
            os.kill(os.getpid(), number)
        return whole(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainStep, "__call__", call)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_exits_75_and_resume_is_exact(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train("name=whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 17, number)
        run = train("name=stopped", code=75)
    assert json.loads((run / "summary.json").read_text())["status"] == "stopped"
    assert f"lm train resume={run}" in capsys.readouterr().err
    assert main(["train", f"resume={run}"]) == 0
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
    one, other = weights(whole), weights(run)
    assert all(one[name].equal(other[name]) for name in one)


def test_extending_a_finished_run_raises_its_limit() -> None:
    run = train("trainer.max_steps=10")
    assert main(["train", f"resume={run}", "trainer.max_steps=30"]) == 0
    one, other = weights(train("name=whole")), weights(run)
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=0.5", "optim.lr cannot change on resume: the run has 0.01, requested 0.5"),
        ("model=rnn", "model cannot change on resume: the run has 'lstm', requested 'rnn'"),
        ("seed=2", "seed cannot change on resume"),
    ],
)
def test_resume_refuses_what_would_change_the_numbers(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("trainer.max_steps=10")
    before = tree()
    capsys.readouterr()
    assert main(["train", f"resume={run}", override]) == 2
    assert message in error(capsys)
    assert tree() == before


def test_resume_refuses_other_data_and_a_damaged_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = train("trainer.max_steps=10")
    Path("text.txt").write_text(TEXT.replace("cat", "cow"))
    capsys.readouterr()
    assert main(["train", f"resume={run}"]) == 4
    assert "data differ" in error(capsys)
    for path in run.glob("checkpoints/step-*/state.json"):
        path.write_text("{}")
    assert main(["train", f"resume={run}"]) == 4
    assert "no good checkpoint" in error(capsys)


def test_init_from_starts_with_the_weights_and_the_tokenizer() -> None:
    first = train("trainer.max_steps=20")
    Path("more.txt").write_text(TEXT.replace("bird", "horse"))
    second = train(
        f"init_from={first}", "data.path=more.txt", "trainer.max_steps=1", "optim.lr=1e-9",
        "name=second",
    )  # fmt: skip
    old, new = weights(first, "best"), weights(second)
    for name in old:
        torch.testing.assert_close(old[name], new[name], rtol=0, atol=1e-7)
    tokenizers = [
        json.loads(next(run.glob("checkpoints/step-*/tokenizer.json")).read_text())
        for run in (first, second)
    ]
    assert tokenizers[0] == tokenizers[1]


def test_init_from_can_extend_the_vocabulary_freeze_and_scale() -> None:
    first = train("trainer.max_steps=20")
    Path("more.txt").write_text(TEXT.replace("bird", "horse"))
    second = train(
        f"init_from={first}", "data.path=more.txt", "extend_vocabulary=true", "freeze=[layers]",
        "lr_scales.head=0.0", "trainer.max_steps=5", "optim.weight_decay=0", "name=second",
    )  # fmt: skip
    old, new = weights(first, "best"), weights(second)
    assert len(new["embedding.weight"]) == len(old["embedding.weight"]) + 1
    for name in old:
        if name.startswith("layers"):
            assert new[name].equal(old[name]), name
    assert new["head.bias"][:-1].equal(old["head.bias"])
    assert not new["embedding.weight"][:-1].equal(old["embedding.weight"])
    assert b"horse" in [w.encode() for w in vocabulary(second)]
    assert vocabulary(second)[:-1] == vocabulary(first)


def vocabulary(run: Path) -> list[str]:
    words = json.loads(next(run.glob("checkpoints/step-*/tokenizer.json")).read_text())["words"]
    assert isinstance(words, list)
    return words


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["model=gru"], 4, "model.cell is 'GRUConfig', the weights of"),
        (["model.hidden_size=20"], 4, "model.hidden_size is 20"),
        (["freeze=[nothing]"], 2, "freeze: no parameter begins with 'nothing'"),
        (["freeze=[embedding,layers,head]"], 2, "leaves nothing to train"),
    ],
)
def test_init_from_refuses_what_does_not_fit(
    overrides: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train("trainer.max_steps=1")
    capsys.readouterr()
    sized = [item for item in SMALL if not item.startswith("model.")]
    assert main(["train", *sized, f"init_from={first}", *overrides]) == code
    assert message in error(capsys)


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["optim.lr=nan"], 2, "optim.lr must be a finite number > 0, got nan"),
        (["optim.lr=-1"], 2, "optim.lr must be a finite number > 0, got -1.0"),
        (["trainer.window=0"], 2, "trainer.window must be >= 1, got 0"),
        (["model.dropout.output=1.5"], 2, "model.dropout.output must be a number in [0, 1)"),
        (["+trainer.lrr=1"], 2, "trainer.lrr"),
        (["model.hiden_size=3"], 2, "nearest: model.hidden_size"),
        (["runtime.device=cuda:7"], 2, "runtime.device=cuda:7 is not available here"),
        (["trainer.max_steps=null", "trainer.max_epochs=null"], 2, "the run has no end"),
        (["schedule=cosine", "trainer.max_steps=null", "trainer.max_epochs=null",
          "trainer.max_seconds=5"], 2, "gives the run no length in steps"),
        (["trainer.max_seconds=5", "schedule=linear"], 2, "gives the run no length in steps"),
        (["freeze=layers"], 2, "freeze must be a list, got 'layers'"),
        (["model.num_layers=3", "model.layer_sizes=[4,5]"], 2, "contradicts model.layer_sizes"),
        (["name=caf\udce9"], 2, "name is not valid UTF-8"),
        (["trainer.batch_size=500"], 3, "tokens, but trainer.batch_size=500"),
        (["data.path=missing.txt"], 3, "missing.txt"),
        (["data.path=empty.txt"], 3, "empty.txt"),
        (["data.path=latin.txt", "tokenizer=char"], 3, "latin.txt"),
        (["resume=nowhere"], 4, "no run at nowhere"),
        (["init_from=nowhere"], 4, "nowhere"),
        (["runs=text.txt"], 6, "cannot create text.txt"),
    ],
)  # fmt: skip
def test_bad_input_gives_its_code_one_line_and_leaves_nothing(
    overrides: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("latin.txt").write_bytes(TEXT.encode() + b"caf\xe9\n" * 20)
    before = tree()
    keys = {override.partition("=")[0] for override in overrides}
    defaults = [item for item in SMALL if item.partition("=")[0] not in keys]
    assert main(["train", *defaults, *overrides]) == code
    assert message in error(capsys)
    assert tree() == before


def test_a_directory_in_use_is_refused_and_names_its_owner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("trainer.max_steps=5")
    again = ["train", f"resume={run}", "trainer.max_steps=6"]
    with RunDirectory.open(run).owned():
        assert main(again) == 6
        assert f"in use by process {os.getpid()} on" in error(capsys)
    # What a killed process leaves is no lock: the system's ended with it.
    (run / "lock").write_text("process 1 on another-machine")
    assert main(again) == 0


def test_a_disk_without_room_for_a_checkpoint_is_found_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    defaults = [item for item in SMALL if not item.startswith("trainer.max_steps")]
    before = tree()
    assert main(["train", *defaults, "trainer.max_steps=1"]) == 6
    assert "a checkpoint has at least" in error(capsys)
    assert tree() == before
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=40_000))
    train("trainer.max_steps=1")
    assert "checkpoints may take" in capsys.readouterr().err


def test_a_save_that_died_between_its_renames_is_repaired_on_resume() -> None:
    run = train("trainer.max_steps=10", "trainer.keep=1")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    checkpoint.rename(checkpoint.with_name(f".old-{checkpoint.name}"))
    (run / "checkpoints" / ".new-step-000000010-abc").mkdir()
    assert main(["train", f"resume={run}", "trainer.max_steps=11"]) == 0
    assert not list((run / "checkpoints").glob(".*"))


def step_of(window: tuple[object, ...]) -> int:
    """Of `TrainStep._accumulate`'s arguments, which bring it with their noise."""
    (noise,) = (argument for argument in window if isinstance(argument, Noise))
    return noise.step


def test_non_finite_training_exits_5_with_the_last_good_checkpoint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TrainStep._accumulate

    def spoiled(self: TrainStep, *window: object) -> object:
        objective, nats, after = whole(self, *window)  # type: ignore[arg-type]
        step = step_of(window)
        bad = float("nan") if step >= 12 else 1.0
        for parameter in self.parameters.values():
            assert parameter.grad is not None
            parameter.grad *= bad
        return objective * bad, nats * bad, after

    monkeypatch.setattr(TrainStep, "_accumulate", spoiled)
    run = train("trainer.max_bad_steps=6", "trainer.max_steps=40", code=5)
    assert "not finite in 8 steps in a row (step 20)" in error(capsys)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], "not finite" in summary["reason"]) == ("failed", True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["optim/skipped_steps"] == 8
    assert all(torch.isfinite(t).all() for t in weights(run).values())


def test_one_bad_step_is_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TrainStep._accumulate

    def spoiled(self: TrainStep, *window: object) -> object:
        objective, nats, after = whole(self, *window)  # type: ignore[arg-type]
        step = step_of(window)
        if step == 12:
            next(iter(self.parameters.values())).grad.fill_(float("inf"))  # type: ignore[union-attr]
            after[0]["h"].fill_(float("nan"))  # type: ignore[index]
        return objective, nats, after

    monkeypatch.setattr(TrainStep, "_accumulate", spoiled)
    run = train()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    skipped = [row["optim/skipped_steps"] for row in rows if "optim/skipped_steps" in row]
    assert skipped == [0, 0, 1, 1, 1, 1]
    assert all(row["train/loss"] is not None for row in rows if "train/loss" in row)


def test_a_run_whose_every_step_was_skipped_does_not_end_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = TrainStep._accumulate

    def spoiled(self: TrainStep, *window: object) -> object:
        objective, nats, after = whole(self, *window)  # type: ignore[arg-type]
        return objective * float("nan"), nats, after

    monkeypatch.setattr(TrainStep, "_accumulate", spoiled)
    train("trainer.log_every=500", "trainer.max_bad_steps=20", code=5)
    assert "in 30 steps in a row" in error(capsys)


# Rectified units without clipping: h grows by a factor a step until it is infinite.
EXPLODING = ["model=rnn", "model.nonlinearity=relu", "optim=sgd", "optim.lr=1e12",
             "trainer.clip.norm=null"]  # fmt: skip


def test_divergence_is_no_bug_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*EXPLODING, code=5)
    assert "not finite in" in error(capsys)
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"


def test_anomaly_names_the_operation(capsys: pytest.CaptureFixture[str]) -> None:
    train(*EXPLODING, "debug=anomaly", code=5)
    torch.autograd.set_detect_anomaly(False)
    text = capsys.readouterr().err  # autograd itself prints where the operation stands
    assert "lm: error: Function" in text
    assert "returned nan values" in text


def test_evaluate_notices_changed_data_and_takes_a_file_of_ones_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("trainer.max_steps=5")
    Path("mine.txt").write_text("the dog sees the mat and the hat .\n" * 3)
    assert main(["evaluate", f"run={run}", "data=text", "data.test=mine.txt"]) == 0
    assert "29 tokens" in capsys.readouterr().out  # 3 lines of 10, the first token is context
    Path("text.txt").write_text(TEXT.replace("bat", "rat"))
    assert main(["evaluate", f"run={run}"]) == 4
    assert "not the one that" in error(capsys)
    assert main(["evaluate", f"run={run}", "changed_data=true"]) == 0


def test_the_continuation_of_words_begins_with_a_space(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("trainer.max_steps=5")
    capsys.readouterr()
    assert main(["generate", f"run={run}", "prompt=the cat", "num_tokens=1", "temperature=0"]) == 0
    assert capsys.readouterr().out[7] in " \n"


PLUGIN = '''
from dataclasses import dataclass

import torch
from torch import nn

import lm
from lm.models import RecurrentConfig
from lm.models.base import Cell


class Leaky(Cell):
    """h_t = a h_{t-1} + (1 - a) tanh(W x_t + U h_{t-1}), a learned per unit."""

    state_names = ("h", "slow")

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias_rate = nn.Parameter(torch.empty(hidden_size))

    def step(self, x, state, weights):
        a = weights["bias_rate"].sigmoid()
        new = torch.tanh(x @ weights["weight_ih"].T + state["h"] @ weights["weight_hh"].T)
        slow = a * state["slow"] + (1 - a) * new
        return {"h": slow.tanh(), "slow": slow}, {"a": a.expand_as(slow)}


@dataclass(kw_only=True, slots=True)
class LeakyConfig(RecurrentConfig):
    """A leaky cell."""

    def build_cell(self, input_size, hidden_size):
        return Leaky(input_size, hidden_size)


lm.register("model", "leaky", LeakyConfig)
'''


@pytest.fixture
def _registry_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    schemas = {group: dict(known) for group, known in registry._schemas.items()}
    monkeypatch.setattr(registry, "_schemas", schemas)
    repository = copy.deepcopy(ConfigStore.instance().repo)
    yield
    ConfigStore.instance().repo = repository


@pytest.mark.usefixtures("_registry_restored")
def test_a_cell_of_ones_own_trains_resumes_evaluates_and_generates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_leaky_cell.py").write_text(PLUGIN)
    monkeypatch.setenv("LM_PLUGINS", "my_leaky_cell")
    monkeypatch.syspath_prepend(str(tmp_path))
    whole = train("model=leaky", "name=whole", "model.num_layers=2")
    with monkeypatch.context() as patch:
        stop_at(patch, 13, signal.SIGTERM)
        run = train("model=leaky", "name=stopped", "model.num_layers=2", code=75)
    assert main(["train", f"resume={run}"]) == 0
    one, other = weights(whole), weights(run)
    assert "layers.1.bias_rate" in one
    assert all(one[name].equal(other[name]) for name in one)
    assert main(["evaluate", f"run={run}"]) == 0
    assert main(["generate", f"run={run}", "num_tokens=5"]) == 0


class Examples(nn.Module):
    """The layout of pytorch/examples' word language model."""

    def __init__(self, cell: str, v: int, tied: bool) -> None:
        super().__init__()
        kinds: dict[str, Callable[[], nn.Module]] = {
            "lstm": lambda: nn.LSTM(6, 6, 2),
            "gru": lambda: nn.GRU(6, 6, 2),
            "rnn": lambda: nn.RNN(6, 6, 2),
        }
        self.encoder = nn.Embedding(v, 6)
        self.rnn = kinds[cell]()
        self.decoder = nn.Linear(6, v)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.rnn(self.encoder(tokens))[0]).log_softmax(-1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_import_gives_the_numbers_of_the_foreign_model(cell: str, tied: bool) -> None:
    words = ["<eos>", "the", "<unk>", "cat", "sat"]
    torch.manual_seed(1)
    theirs = Examples(cell, len(words), tied)
    torch.save(theirs.state_dict(), "weights.pt")
    Path("vocabulary.txt").write_text("\n".join(words) + "\n")
    assert main(["import", "weights.pt", "vocabulary=vocabulary.txt", f"model={cell}"]) == 0
    loaded = lm.load(newest())
    text = "the cat sat\nthe dog sat\n"
    ids = torch.tensor([1, 3, 4, 0, 1, 2, 4, 0])[:, None]
    wanted = -theirs(ids[:-1])[:, 0].gather(1, ids[1:]).squeeze(1)
    tokens, nats = loaded.score(text)
    assert tokens == ["cat", "sat", "<eos>", "the", "<unk>", "sat", "<eos>"]
    torch.testing.assert_close(nats, wanted.detach(), rtol=1e-5, atol=1e-5)


def test_import_executes_nothing_and_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, ("executed",))

    torch.save({"encoder.weight": Payload()}, "hostile.pt")
    Path("vocabulary.txt").write_text("<eos>\n<unk>\n")
    assert main(["import", "hostile.pt", "vocabulary=vocabulary.txt"]) == 4
    assert "cannot read the weights of hostile.pt" in error(capsys)
    assert not Path("executed").exists()
    torch.save({"weight": torch.zeros(2)}, "other.pt")
    assert main(["import", "other.pt", "vocabulary=vocabulary.txt"]) == 4
    assert "has no matrix encoder.weight" in error(capsys)
    torch.save(Examples("lstm", 5, False).state_dict(), "good.pt")
    assert main(["import", "good.pt", "vocabulary=vocabulary.txt"]) == 3
    assert "has 2 words, the embedding 5 rows" in error(capsys)
