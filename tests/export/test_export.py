"""`lm export`: a folder that is whole and checked, or a reason and nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from console import error, tree
from export_cases import CASES, subject_of
from torch import Tensor

import lm
import lm.commands.export as command
from lm.cli import main
from lm.data.tokenizers import TOKENIZERS
from lm.errors import ExportError
from lm.export import folder as writing
from lm.export.folder import export
from lm.export.form import ExportFormat
from lm.export.graphs import STEP, WINDOW, StepProgram, exportable, flat, nested
from lm.models import NgramConfig

HERE = Path(__file__).parent
NAME = "lstm, learned state"


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The model itself takes the place of its graphs, off by so much."""

    def replace(difference: float) -> None:
        model = exportable(subject_of(NAME).model)
        step = StepProgram(model)

        def window(tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            log_prob, after = model.log_prob(tokens, nested(model, state))
            return log_prob + difference, flat(model, after)

        def write(model: object, found: object, form: object, folder: Path) -> dict[str, object]:
            (folder / "model.onnx").write_bytes(b"graph")
            return {WINDOW: window, STEP: step}

        monkeypatch.setattr(writing, "programs", lambda model: {})
        monkeypatch.setattr(writing, "_write", write)

    return replace


def test_the_folder_tells_what_the_model_is(untraced: Callable[[float], None]) -> None:
    untraced(0.0)
    subject = subject_of(NAME)
    found = export(subject, ExportFormat.onnx, Path("a/b/out"))
    out = Path("a/b/out")
    assert tree() == [
        "a", "a/b", "a/b/out", *(f"a/b/out/{name}" for name in (
            "README.md", "config.json", "initial_state.json", "model.onnx", "tokenizer.json",
            "use.py",
        )),
    ]  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert config["state"] == {"state.0.h": 16, "state.0.c": 16, "state.1.h": 16, "state.1.c": 16}
    assert (config["vocab_size"], config["begin_token"]) == (256, 10)
    assert config["architecture"]["cell"] == "LSTMConfig"
    assert config["largest_difference"]["log_prob"] == found.log_prob < 5e-6
    start = json.loads((out / "initial_state.json").read_text())
    wanted = exportable(subject.model).initial_state(1)[1]["c"][0].tolist()
    assert start["state.1.c"] == pytest.approx(wanted)
    assert any(wanted)
    readme = (out / "README.md").read_text()
    assert "| in: `state.1.c` | [B, 16] | [B, 16] | float32 |" in readme
    assert "V = 256 tokens of a byte vocabulary" in readme


def test_what_computes_something_else_leaves_nothing(untraced: Callable[[float], None]) -> None:
    untraced(2e-5)
    with pytest.raises(ExportError) as caught:
        export(subject_of(NAME), ExportFormat.onnx, Path("a/b/out"))
    assert caught.value.code == 8
    assert "log_prob 2" in caught.value.cause
    assert tree() == []


def test_an_empty_folder_is_taken(untraced: Callable[[float], None]) -> None:
    untraced(0.0)
    Path("out").mkdir()
    export(subject_of(NAME), ExportFormat.torch, Path("out"))
    assert not Path("out/use.py").exists()
    assert "torch.export.load" in Path("out/README.md").read_text()


@pytest.fixture
def _loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that `run=ngram` and any other name stand for."""

    def load(run: str, checkpoint: str) -> SimpleNamespace:
        subject = subject_of(NAME)
        model = NgramConfig(order=2).build(9, seed=1) if run == "ngram" else subject.model
        config = SimpleNamespace(
            model=subject.architecture, data=SimpleNamespace(unit=subject.unit)
        )
        path = Path("runs/step-000000000")
        return SimpleNamespace(model=model, tokenizer=subject.tokenizer, config=config, path=path)

    monkeypatch.setattr(command, "load", load)


@pytest.mark.usefixtures("_loads")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run=r", "output=taken"], 6, "taken exists and is not an empty folder"),
        (["run=r", "output=taken/file"], 6, "taken/file exists and is not an empty folder"),
        (["run=r", "output=taken/file/out"], 6, "taken/file"),
        (["run=ngram", "output=out"], 2, "NgramModel"),
        (["run=r", "output=out", "format=onxx"], 2, "onxx"),
        (["run=r", "outptu=out"], 2, "outptu"),
        (["run=r"], 2, "output"),
        (["output=out"], 2, "run"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    Path("taken/file").write_text("mine")
    before = tree()
    assert main(["export", *arguments]) == code
    assert message in error(capsys)
    assert tree() == before


@pytest.mark.usefixtures("_loads")
def test_without_the_extra_there_is_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "run=r", "output=out"]) == 2
    said = capsys.readouterr().err
    assert "format=onnx needs onnxruntime, which is not installed" in said
    assert "pip install onnx onnxscript onnxruntime" in said


@pytest.mark.usefixtures("_loads")
def test_the_command_prints_the_largest_difference(
    untraced: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    untraced(0.0)
    assert main(["export", "run=r", "output=out"]) == 0
    assert "largest difference from the model" in capsys.readouterr().out


def python(*arguments: str, folder: Path) -> str:
    """What a process says; it sees `lm`, and no checks of signatures."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("cell", sorted({cell for cell, _ in CASES.values()}))
def test_every_cell_and_head_is_exported(cell: str, tmp_path: Path) -> None:
    names = [name for name, (kind, _) in CASES.items() if kind == cell]
    said = python("-W", "error", str(HERE / "export_cases.py"), "out", *names, folder=tmp_path)
    rows = [line.split("\t") for line in said.splitlines()]
    assert {(name, form) for name, form, *_ in rows} == {
        (name, form.value) for name in names for form in ExportFormat
    }
    assert all(float(number) <= 1e-5 for _, _, *numbers in rows for number in numbers)
    for name in names:
        files = list(tmp_path.glob(f"out/{name}/*/*"))
        assert len(files) > 10
        # Nothing of this machine in them: the exporters note where each operation comes from.
        assert not [path for path in files if bytes(HERE.parents[1]) in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_use_scores_and_generates_as_lm_does(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a cat sees the mat and the hat .\nthe dog has one Bär .\n"
    Path("text.txt").write_text(text * 40)
    small = [
        "data=text", "data.path=text.txt", f"tokenizer={kind}", "model.hidden_size=16",
        "model.embedding_size=12", "trainer.batch_size=2", "trainer.window=12",
        "trainer.max_steps=30", "schedule=constant", "optim.lr=0.02", "runtime.device=cpu",
    ]  # fmt: skip
    assert main(["train", *small]) == 0
    run = next(tmp_path.glob("runs/*/*/"))
    python("-W", "error", "-m", "lm", "export", f"run={run}", "output=out", folder=tmp_path)
    # Where neither torch nor lm can be imported.
    hidden = tmp_path / "hidden"
    for name in ("torch", "lm"):
        (hidden / name).mkdir(parents=True)
        (hidden / name / "__init__.py").write_text("raise ImportError")
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(hidden)!r}); sys.argv[0] = 'out/use.py'\n"
        "runpy.run_path('out/use.py', run_name='__main__')"
    )
    use = "-c", code
    said = python(*use, "score", text, folder=tmp_path)
    _, nats = lm.load(run).score(text)
    assert f"tokens {len(nats)} " in said
    perplexity = float(said.rpartition("perplexity ")[2])
    assert perplexity == pytest.approx(nats.double().mean().exp().item(), rel=1e-5)
    continued = python(*use, "generate", "a cat", "--temperature", "0", folder=tmp_path)
    capsys.readouterr()
    assert main(["generate", f"run={run}", "prompt=a cat", "temperature=0", "num_tokens=100"]) == 0
    assert continued == capsys.readouterr().out


@pytest.mark.slow
def test_a_torch_program_runs_without_lm(tmp_path: Path) -> None:
    python(str(HERE / "export_cases.py"), "out", "qrnn, softmax", folder=tmp_path)
    code = (
        "import json, sys, torch; sys.modules['lm'] = None\n"
        "start = json.load(open('initial_state.json'))\n"
        "state = [torch.tensor([row, row]) for row in start.values()]\n"
        "window, step = (torch.export.load(f'{n}.pt2').module() for n in ('model', 'step'))\n"
        "tokens = torch.tensor([[3, 250], [99, 7], [5, 5]])\n"
        "whole, _ = window(tokens, state)\n"
        "for token, wanted in zip(tokens, whole):\n"
        "    log_prob, state = step(token, state)\n"
        "    assert torch.allclose(log_prob, wanted, atol=1e-5)\n"
        "json.dump(whole.tolist(), sys.stdout)\n"
    )
    found = json.loads(python("-c", code, folder=tmp_path / "out/qrnn, softmax/torch"))
    wanted, _ = subject_of("qrnn, softmax").model.log_prob(
        torch.tensor([[3, 250], [99, 7], [5, 5]])
    )
    torch.testing.assert_close(torch.tensor(found), wanted, rtol=0, atol=1e-5)
