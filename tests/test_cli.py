"""The command line: what it says, its exit codes, and that it writes nothing when rejected."""

import errno
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import lm
from lm import config
from lm.cli import VERBS, launch, main
from lm.cli.report import report
from lm.commands import module_of
from lm.config import GenerateConfig, TrainConfig, compose, invocation, job_directory, parse
from lm.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NumericError,
    OutOfMemoryError,
    Stopped,
    StorageError,
)
from lm.models import MODELS

ROOT = Path(__file__).parents[1]


@dataclass
class Recorder:
    """A command that notes what it is called with, and fails where it is told to."""

    calls: list[Any] = field(default_factory=list)
    jobs: list[Path | None] = field(default_factory=list)
    overrides: list[tuple[str, ...]] = field(default_factory=list)
    failures: dict[int, BaseException] = field(default_factory=dict)
    act: Callable[[], None] = lambda: None

    def run(self, parsed: Any) -> float:
        number = len(self.calls)
        self.calls.append(parsed)
        self.jobs.append(job_directory())
        call = invocation()
        assert call is not None
        self.overrides.append(call.overrides)
        self.act()
        if number in self.failures:
            raise self.failures[number]
        return 1.5


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """Every verb's command is one recorder; the working directory is empty."""
    recorder = Recorder()
    module = ModuleType("recorder")
    module.run = recorder.run  # type: ignore[attr-defined]
    for verb in VERBS:
        monkeypatch.setitem(sys.modules, module_of(verb), module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LM_TRACEBACK", raising=False)
    return recorder


def lm_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    line = [sys.executable, "-m", "lm", *arguments]
    return subprocess.run(
        line, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


# Help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert all(f"  {verb} " in said for verb in VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lm {lm.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert lm.__version__ == project["version"]


def test_help_loads_neither_torch_nor_hydra(tmp_path: Path) -> None:
    code = (
        "import sys; from lm.cli import main; import lm\n"
        "codes = [main(['--help']), main(['--version']), main(['trian'])]\n"
        "assert codes == [0, 0, 2], codes\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no verb 'trian'; nearest: train" in done.stderr


def test_the_package_gives_its_functions_lazily() -> None:
    assert lm.register is config.register
    assert lm.train is launch.train
    assert {"load", "register", "train"} <= set(dir(lm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lm.nothing


def test_a_verbs_help_shows_groups_and_fields_but_no_schemas(
    command: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--help", "model=gru"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("lm train: train a model")
    assert f"model: {', '.join(sorted(MODELS))}\n" in said
    assert "  hidden_size: 512\n" in said
    assert "schema/" not in said
    assert command.calls == []


def test_cfg_job_shows_the_configuration(
    command: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", "seed=5", "--cfg", "job", "--package", "optim", "optim.lr=0.25"]) == 0
    assert capsys.readouterr().out.startswith("# @package optim\nlr: 0.25\n")
    assert (command.calls, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--help"]])
def test_looking_at_a_wrong_configuration(
    flags: list[str], command: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *flags, "+model.hiden=3"]) == 2
    assert capsys.readouterr().err.startswith("lm: error: unknown field model.hiden;")


def test_info_and_completion_keep_working(
    command: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "-sc", "install=bash"]) == 0
    assert "lm-train" in capsys.readouterr().out
    monkeypatch.setenv("COMP_LINE", "lm-train model=")
    monkeypatch.setenv("COMP_POINT", "15")
    assert main(["train", "-sc", "query=bash"]) == 0
    offered = capsys.readouterr().out.split()
    assert offered == [f"model={name}" for name in sorted(MODELS)]


# Wrong command lines

WRONG = {
    "model.hiden=3": "unknown field model.hiden; nearest: model.hidden_size",
    "+model.hiden=3": "unknown field model.hiden; nearest: model.hidden_size",
    "+model={hiden: 3}": "unknown field model.hiden; nearest: model.hidden_size",
    "model.dropout.embeding=0.1": "unknown field model.dropout.embeding; nearest: "
    "model.dropout.embedding",
    "modle=lstm": "unknown field modle; nearest: model",
    "model=lsmt": "no option 'lsmt' in group model; nearest: lstm",
    "experiment=ptb_smal": "no option 'ptb_smal' in group experiment; nearest: ptb_small",
    "lr=3": "unknown field lr; nearest: optim.lr",
    "model.nonlinearity=relu": "unknown field model.nonlinearity of the chosen model",
    "~optm": "unknown field optm; nearest: optim",
    "~optim": "optim is required",
    "~optim.lr": "cannot delete the field optim.lr",
    "+seed=3": "seed exists already",
    "model=3": "model takes the name of an option, got '3'",
    "model@other=lstm": "unknown field model@other; nearest: model",
    "seed=1,2": "seed=1,2 names several values",
    "seed=range(1,3)": "seed=range(1,3) names several values",
    "train": "expected <field>=<value>, got 'train'",
    "seed=(": "cannot read the value of seed: '('",
    "seed=abc": "seed must be a whole number, got 'abc'",
    "seed=1.5": "seed must be a whole number, got 1.5",
    "seed=null": "seed must not be null",
    "model.tied=maybe": "model.tied must be true or false, got 'maybe'",
    "data.unit=lin": "data.unit must be one of stream, document, line, got 'lin'",
    "model.layer_sizes=[1,a]": "model.layer_sizes[1] must be a whole number, got 'a'",
    "optim.lr=nan": "optim.lr must be a finite number > 0, got nan",
    "trainer.window=0": "trainer.window must be >= 1, got 0",
    "model.dropout.output=1.5": "model.dropout.output must be a number in [0, 1), got 1.5",
    "optim.lr=${nope}": "optim.lr: interpolation key 'nope' not found",
    "hydra/launcher=nope": "no option 'nope' in group hydra/launcher",
    "--nope": "unrecognized arguments: --nope",
    "--config-dir=nowhere": "no configuration folder ",
    "--config-name=nowhere": "no configuration named 'nowhere'",
    "--config-path=x": "--config-path hides lm's own files",
    "--experimental-rerun=x": "--experimental-rerun runs a pickle",
    "--resolve": "--resolve and --package say how --cfg prints",
    "--package=model": "--resolve and --package say how --cfg prints",
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_argument_exits_2_with_two_lines_and_writes_nothing(
    argument: str, command: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", argument]) == 2
    cause, remedy = capsys.readouterr().err.splitlines()
    assert cause.startswith(f"lm: error: {WRONG[argument]}")
    assert remedy.startswith("  ")
    assert remedy.strip()
    assert (command.calls, list(tmp_path.iterdir())) == ([], [])


def test_a_group_of_another_verb(command: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "run=r", "optim=sgd"]) == 2
    assert capsys.readouterr().err.startswith("lm: error: unknown field optim")


def test_a_field_of_a_group_without_a_choice(
    command: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "run=r", "data.root=x"]) == 2
    assert capsys.readouterr().err.startswith("lm: error: data.root needs a choice of data\n")
    assert main(["train", "model.layer_sizes.x=1"]) == 2
    assert "a field of a null value cannot be set: model.layer" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_a_run_is_required(
    verb: str, command: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "lm: error: run is required",
        "  Set run=<value>.",
    ]


def test_a_wrong_argument_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = lm_process("train", "model.hiden=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "lm: error: unknown field model.hiden; nearest: model.hidden_size",
        "  `lm train --help` shows every field.",
    ]
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


def test_a_faulty_yaml_file_is_named(
    command: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "configs" / "model"
    folder.mkdir(parents=True)
    (folder / "cut.yaml").write_text("hidden_size: [1\n")
    (folder / "odd.yaml").write_text("defaults:\n  - /schema/model@_here_: gru\n  - _self_\nx: 1\n")
    assert main(["train", "model=cut"]) == 2
    assert "invalid YAML: " in (said := capsys.readouterr().err)
    assert "cut.yaml" in said
    assert main(["train", "model=odd"]) == 2
    assert "unknown field model.x" in capsys.readouterr().err


# What a command raises


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("c", "r"), 2),
        (DataError("c", "r"), 3),
        (CheckpointError("c", "r"), 4),
        (NumericError("c", "r"), 5),
        (StorageError("c", "r"), 6),
        (OutOfMemoryError("c", "r"), 7),
        (OSError(errno.ENOSPC, "No space left on device", "/full"), 6),
        (PermissionError(errno.EACCES, "Permission denied", "/locked"), 6),
        (OSError(errno.EROFS, "Read-only file system"), 6),
        (MemoryError(), 7),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), 7),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 8 bytes"), 7),
        (Stopped("stopped at step 5 and saved", "lm train resume=r"), 75),
    ],
)
def test_errors_map_to_codes_and_two_lines(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("lm: ")
    assert lines[1].startswith("  ")


def test_an_error_of_the_command_arrives_unwrapped(
    command: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command.failures = {0: DataError("corpus is empty", "Name another.")}
    assert main(["generate", "run=r"]) == 3
    assert capsys.readouterr().err == "lm: error: corpus is empty\n  Name another.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_bug_shows_its_traceback(command: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    command.failures = {0: ValueError("our fault")}
    assert main(["generate", "run=r"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "lm: error: ValueError: our fault\n  This is a bug in lm" in said
    assert "Error executing job" not in said


def test_a_traceback_on_request(
    command: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_TRACEBACK", "1")
    assert main(["train", "model=lsmt"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Stopped("s"), 75)])
def test_signals_have_their_codes(command: Recorder, error: BaseException, code: int) -> None:
    command.failures = {0: error}
    assert main(["generate", "run=r"]) == code


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "lm", "--help"],
        cwd=tmp_path,
        env=environment,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


# Several runs


def test_a_multirun_gives_each_job_its_directory(command: Recorder) -> None:
    assert main(["train", "-m", "model=rnn,gru", "seed=5", "name=sweep"]) == 0
    chosen = [(type(call.model).__name__, call.seed) for call in command.calls]
    assert chosen == [("RNNConfig", 5), ("GRUConfig", 5)]
    parents = {job.parent for job in command.jobs if job is not None}
    assert len(parents) == 1
    assert parents.pop().parent == Path("runs/sweep")
    assert [job.name for job in command.jobs if job is not None] == ["0", "1"]
    assert command.overrides[1] == ("model=gru", "seed=5", "name='sweep'")


def test_a_job_knows_what_its_multirun_varies(command: Recorder) -> None:
    seen: list[frozenset[str]] = []

    def look() -> None:
        call = invocation()
        assert call is not None
        seen.append(call.swept)

    command.act = look
    assert main(["train", "-m", "model=rnn,gru", "seed=5", "name=one, not two"]) == 0
    assert seen == [frozenset({"model"})] * 2
    assert main(["train", "seed=5", "optim.lr=0.1"]) == 0
    assert seen[2] == frozenset()


def test_a_multirun_leaves_only_what_its_jobs_left(command: Recorder, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["train", "-m", "seed=1,2", "name=nothing"]) == 0
    assert list(tmp_path.rglob("*")) == [tmp_path / "runs"]

    def leave_something() -> None:
        job = command.jobs[-1]
        assert job is not None
        job.mkdir()

    command.act = leave_something
    assert main(["train", "-m", "seed=1,2", "name=sweep"]) == 0
    (folder,) = Path("runs/sweep").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "multirun.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [["train"], ["evaluate", "run=r"], ["generate", "run=r"], ["import", "p", "vocabulary=v"]],
)
def test_a_single_run_has_no_job_directory_and_hydra_writes_nothing(
    arguments: list[str], command: Recorder, tmp_path: Path
) -> None:
    assert main(arguments) == 0
    assert command.jobs == [None]
    assert invocation() is None
    assert list(tmp_path.iterdir()) == []


def test_a_single_run_is_composed_once_and_hydra_serves_it(
    command: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    composed: list[str] = []
    load = ConfigLoaderImpl._load_configuration_impl

    def counting(self: ConfigLoaderImpl, *positional: Any, **named: Any) -> Any:
        composed.append(named["config_name"])
        return load(self, *positional, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counting)
    served: list[str | None] = []

    def serving(parsed: Any) -> float:
        served.extend((HydraConfig.get().job.name, os.environ.get("SEEN"), Path.cwd().name))
        return command.run(parsed)

    monkeypatch.setattr(sys.modules["lm.commands.train"], "run", serving)
    assert main(["train", "+hydra.job.env_set.SEEN=1", "hydra.run.dir=here"]) == 0
    assert composed == ["train"]
    assert served == ["train", "1", tmp_path.name]
    assert (tmp_path / "here").is_dir()
    assert "SEEN" not in os.environ
    assert not GlobalHydra.instance().is_initialized()


def test_one_failing_job_lets_the_others_finish(
    command: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    command.failures = {0: NumericError("loss is nan", "Lower it."), 1: DataError("d", "r")}
    assert main(["generate", "-m", "run=r", "seed=1,2,3", "hydra.sweeper.max_batch_size=1"]) == 5
    assert len(command.calls) == 3
    said = capsys.readouterr().err
    assert "lm: error: job 0 (run='r' seed=1): loss is nan\n  Lower it.\n" in said
    assert "lm: error: job 1 (run='r' seed=2): d\n" in said
    assert "Error executing job" not in said


def test_a_stop_ends_the_sweep(command: Recorder) -> None:
    command.failures = {1: Stopped("stopped and saved")}
    assert main(["generate", "-m", "run=r", "seed=1,2,3"]) == 75
    assert len(command.calls) == 2


@pytest.mark.parametrize("sweep", ["model=lstm,grw", "seed=1,-1", "optim.lr=1,abc", "seed=1,("])
def test_a_rejected_multirun_writes_nothing(
    sweep: str, command: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", sweep]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert (command.calls, list(tmp_path.iterdir())) == ([], [])


def test_a_sweep_over_free_text_is_asked_for_by_choice(command: Recorder) -> None:
    assert main(["generate", "-m", "run=a,b", 'prompt=choice("x, y","(z")']) == 0
    assert [call.prompt for call in command.calls] == ["x, y", "(z"]
    assert {call.run for call in command.calls} == {"a,b"}


def test_a_multirun_that_cannot_write_exits_6(
    command: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert main(["generate", "-m", "run=r", "seed=1,2", "hydra.sweep.dir=elsewhere"]) == 0
    assert main(["train", "-m", "seed=1,2", "runs=file"]) == 6
    assert capsys.readouterr().err.splitlines()[-2].startswith("lm: error: cannot create file/")
    assert len(command.calls) == 2


# Text and paths

NASTY = r"""a,b (c) [d] {e} 'f' "g" h=i $j ${k} \${l} \\ ~m #n é 語 %o @p !q; : \
 next line	tab \ """


def test_text_and_paths_arrive_intact(command: Recorder) -> None:
    given = [f"prompt={NASTY}", f"stop={NASTY}\\", f"run={NASTY}", "checkpoint="]
    assert main(["generate", *given, f"runtime.cache={NASTY}"]) == 0
    (call,) = command.calls
    assert (call.prompt, call.stop, call.run) == (NASTY, f"{NASTY}\\", NASTY)
    assert (call.checkpoint, call.runtime.cache) == ("", NASTY)


def test_null_is_null_where_it_means_off(command: Recorder) -> None:
    assert main(["generate", "run=null", "prompt=null", "stop=null"]) == 0
    (call,) = command.calls
    assert (call.run, call.prompt, call.stop) == ("null", "null", None)


_PIECES = ["\\", "'", '"', "${", "}", "$", ",", "=", "(", " ", "\n", "oc.env:HOME", "???", "é", "a"]
_TEXT = st.lists(
    st.sampled_from(_PIECES) | st.characters(exclude_categories=["Cs"]), max_size=12
).map("".join)


@settings(max_examples=400, deadline=None)
@given(_TEXT.filter(lambda text: text != "???"))
@example(r"\${x}")
@example("\\" * 3 + "${oc.env:HOME}" + "\\" * 2)
def test_any_text_survives_both_grammars(text: str) -> None:
    override = OverridesParser.create().parse_override(config.prepare(f"prompt={text}"))
    assert OmegaConf.create({"prompt": override.value()}).prompt == text


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TEXT, _TEXT)
def test_any_text_survives_composition_and_parsing(prompt: str, stop: str) -> None:
    given = [config.prepare(f"prompt={prompt}"), config.prepare(f"stop={stop}"), "run=r"]
    parsed = parse(compose("generate", given), GenerateConfig)
    assert (parsed.prompt, parsed.stop) == (prompt, stop)


def test_a_path_may_read_the_environment_and_a_prompt_not(
    command: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "/there")
    assert main(["generate", "run=${oc.env:PLACE}/run, 1", "prompt=${oc.env:PLACE}"]) == 0
    (call,) = command.calls
    assert (call.run, call.prompt) == ("/there/run, 1", "${oc.env:PLACE}")


def test_import_takes_its_path_first(command: Recorder) -> None:
    assert main(["import", "my model (1).pt", "vocabulary=v,w.txt", "model=rnn"]) == 0
    (call,) = command.calls
    assert (call.path, call.vocabulary) == ("my model (1).pt", "v,w.txt")


# Python


def test_train_from_python(command: Recorder) -> None:
    assert lm.train(["model=rnn", "data.root=a, b", "lr_scales.head=0.5"]) == 1.5
    (call,) = command.calls
    assert isinstance(call, TrainConfig)
    assert (call.data.root, call.lr_scales) == ("a, b", {"head": 0.5})


@pytest.mark.parametrize("override", ["model=lsmt", "+model.x=1", "optim.lr=0", "seed=("])
def test_train_from_python_raises_what_the_command_line_prints(
    override: str, command: Recorder
) -> None:
    with pytest.raises(ConfigError):
        lm.train([override])
    assert command.calls == []


def test_console_scripts_run_their_verbs(
    command: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"lm", *(f"lm-{verb}" for verb in VERBS)}
    import lm.cli

    monkeypatch.setattr(sys, "argv", ["lm-generate", "run=r", "seed=3"])
    function: Callable[[], int] = getattr(lm.cli, scripts["lm-generate"].partition(":")[2])
    assert function() == 0
    assert command.calls[0].seed == 3
    assert sys.argv == ["lm-generate", "run=r", "seed=3"]
