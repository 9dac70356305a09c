"""Composition, parsing, saved configurations and what a resumed run may change."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import lm
from lm import config
from lm.config import (
    ROOTS,
    EvaluateConfig,
    GenerateConfig,
    TrainConfig,
    compose,
    dump,
    load_config,
    parse,
    portable_config,
    registry,
    resume_config,
)
from lm.errors import CheckpointError, ConfigError
from lm.models.rnn import RNNConfig
from lm.optim.optimizers import SGDConfig

CONFIGS = config.config_dir()
NEEDED = {"data=text": ["data.path=corpus.txt"]}  # what an option asks of the user


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers."""
    monkeypatch.setattr(registry, "_schemas", {g: dict(s) for g, s in registry._schemas.items()})
    monkeypatch.setattr(registry, "_loaded", set(registry._loaded))
    before = set(ConfigStore.instance().repo["model"]) if "model" in store() else set()
    yield
    for name in set(store().get("model", {})) - before:
        del store()["model"][name]
        del store()["schema"]["model"][name]


def store() -> dict:
    return ConfigStore.instance().repo


def options() -> list[str]:
    """Every option once, as few command lines as it takes: overlays alone, else one per group."""
    files = sorted(CONFIGS.glob("*/**/*.yaml"))
    named = [(f.parent.relative_to(CONFIGS).as_posix(), f.stem) for f in files]
    alone = [f"{group}={name}" for group, name in named if group not in registry.BASES]
    columns = [[f"{g}={n}" for g, n in named if g == group] for group in registry.BASES]
    rows = zip_longest(*columns)
    return [*alone, *(" ".join(option for option in row if option) for row in rows)]


# Every file of the tree


@pytest.mark.parametrize("verb", ROOTS)
def test_every_root_composes_and_parses(verb: str) -> None:
    required = {
        "sweep": ["sweep=lr"],
        "reproduce": ["row=r"],
        "evaluate": ["run=r"],
        "generate": ["run=r"],
        "inspect": ["run=[r]"],
        "score": ["run=r", "input=i"],
        "export": ["run=r", "output=o"],
        "import": ["path=p", "vocabulary=v"],
    }
    parsed = parse(compose(verb, required.get(verb, [])), ROOTS[verb])
    assert type(parsed) is ROOTS[verb]


def test_every_root_file_is_a_verb() -> None:
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(ROOTS)


@pytest.mark.parametrize("chosen", options())
def test_every_option_composes_and_parses(chosen: str) -> None:
    needed = [text for option in chosen.split() for text in NEEDED.get(option, [])]
    verb = "sweep" if chosen.startswith("sweep=") else "train"
    parsed = parse(compose(verb, [*chosen.split(), *needed]), ROOTS[verb])
    for group, _, name in (option.partition("=") for option in chosen.split()):
        if group in registry.BASES:
            assert type(getattr(parsed, group)) is registry.schema_named(group, name)


@pytest.mark.parametrize("group", registry.BASES)
def test_every_schema_has_its_file_and_every_file_opens_with_a_comment(group: str) -> None:
    files = list((CONFIGS / group).glob("*.yaml"))
    assert set(registry.schema_names(group)) <= {file.stem for file in files}
    assert all(file.read_text().startswith("# ") for file in files)


def test_an_experiment_overrides_the_root_and_the_command_line_both() -> None:
    composed = parse(compose("train", ["experiment=ptb_small", "optim.lr=3"]), TrainConfig)
    assert composed.name == "ptb_small"
    assert composed.model.hidden_size == 200
    assert isinstance(composed.optim, SGDConfig)
    assert composed.optim.lr == 3.0


def test_evaluation_takes_another_corpus_and_else_none() -> None:
    other = parse(compose("evaluate", ["run=r", "data=ptb", "data.root=x"]), EvaluateConfig)
    assert other.data is not None
    assert other.data.root == "x"
    assert parse(compose("evaluate", ["run=r"]), EvaluateConfig).data is None


# Ranges of the roots


@pytest.mark.parametrize(
    ("verb", "override", "cause"),
    [
        ("train", "name=../up", "name must be a folder name inside runs, got '../up'"),
        ("train", "name=''", "name must be a folder name inside runs, got ''"),
        ("train", "seed=-1", "seed must be >= 0, got -1"),
        ("train", "++lr_scales.embedding=-1", "lr_scales.embedding must be a finite number >= 0"),
        ("train", "extend_vocabulary=true", "extend_vocabulary=true needs a vocabulary"),
        ("evaluate", "splits=[dev]", "splits must be one of train, valid, test, got 'dev'"),
        ("evaluate", "splits=[]", "len(splits) must be >= 1, got 0"),
        ("evaluate", "streams=0", "streams must be >= 1, got 0"),
        ("generate", "temperature=-1", "temperature must be a finite number >= 0, got -1.0"),
        ("generate", "top_p=1.5", "top_p must be a number in (0, 1], got 1.5"),
        ("generate", "~run", "run is required"),
    ],
)
def test_roots_check_their_ranges(verb: str, override: str, cause: str) -> None:
    given = [] if verb == "train" or override == "~run" else ["run=r"]
    override_list = given if override == "~run" else [*given, override]
    with pytest.raises(ConfigError) as caught:
        parse(compose(verb, override_list), ROOTS[verb])
    assert caught.value.cause.startswith(cause)


# Interpolations


def test_a_path_field_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPORA", "/corpora")
    composed = compose("train", ["data.root=${oc.env:CORPORA}/ptb"])
    assert parse(composed, TrainConfig).data.root == "/corpora/ptb"


def test_a_field_refers_to_a_field() -> None:
    composed = compose("train", ["trainer.window=7", "trainer.batch_size=${trainer.window}"])
    assert parse(composed, TrainConfig).trainer.batch_size == 7


@pytest.mark.parametrize(
    "override",
    [
        "name=${oc.env:HOME}",
        "data.root=${now:%Y}",
        "data.root=${oc.decode:x}",
        "data.root='${oc.env:${name}}'",
        "seed=${oc.env:SHLVL}",
        "freeze=['${oc.env:HOME}']",
        "name='${${runs}:HOME}'",
        r"name='a\${b}'",
    ],
)
def test_other_resolvers_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="may not call a resolver"):
        parse(compose("train", [override]), TrainConfig)


@pytest.mark.parametrize("mark", ["???", "${x}", "a\\${x}\\", "", "null", " ", "???${oc.env:HOME}"])
def test_text_is_taken_to_the_letter(mark: str) -> None:
    override = config.prepare(f"prompt={mark}")
    assert parse(compose("generate", ["run=r", override]), GenerateConfig).prompt == mark


# Plugins


@dataclass(kw_only=True, slots=True)
class EchoConfig(RNNConfig):
    """A user's own cell."""

    strength: float = 0.5


@pytest.mark.usefixtures("plugins")
def test_a_registered_schema_is_chosen_typed_and_saved(tmp_path: Path) -> None:
    lm.register("model", "echo", EchoConfig)
    composed = compose("train", ["model=echo", "model.strength=2"])
    (tmp_path / "config.yaml").write_text(dump(composed))
    loaded = parse(load_config(tmp_path / "config.yaml"), TrainConfig)
    assert loaded == parse(composed, TrainConfig)
    assert isinstance(loaded.model, EchoConfig)
    assert loaded.model.strength == 2.0


@pytest.mark.usefixtures("plugins")
def test_the_same_definition_may_run_again_but_a_name_is_not_taken_over() -> None:
    lm.register("model", "echo", EchoConfig)
    lm.register("model", "echo", EchoConfig)
    with pytest.raises(ConfigError, match=r"model=lstm is taken by lm\.models\.lstm\.LSTMConfig"):
        lm.register("model", "lstm", EchoConfig)


@dataclass(kw_only=True)
class LooseConfig(RNNConfig):
    """No slots."""


@dataclass(slots=True)
class PositionalConfig(RNNConfig):
    """Not keyword-only."""

    strength: float = 1.0


@dataclass(kw_only=True, slots=True)
class UntypableConfig(RNNConfig):
    """A field that OmegaConf cannot hold."""

    callback: Path | DictConfig = Path()


class PlainConfig(RNNConfig):
    """Not a dataclass itself."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("group", "name", "schema", "cause"),
    [
        ("modle", "echo", EchoConfig, "no group 'modle' to register in"),
        ("model", "My/Cell", EchoConfig, "lower-case letters, digits and _, got 'My/Cell'"),
        ("optim", "echo", EchoConfig, "the schema of optim=echo does not derive from OptimConfig"),
        ("model", "echo", LooseConfig, "has no slots"),
        ("model", "echo", PositionalConfig, "takes positional arguments"),
        ("model", "echo", UntypableConfig, "has a field that cannot be configured"),
        ("model", "echo", PlainConfig, "is not a dataclass"),
    ],
)
def test_what_cannot_be_registered_says_why(
    group: str, name: str, schema: type, cause: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        lm.register(group, name, schema)
    assert cause in caught.value.cause


@pytest.mark.usefixtures("plugins")
def test_plugins_are_imported_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_cells.py").write_text(
        "from dataclasses import dataclass\n"
        "import lm\n"
        "from lm.models.rnn import RNNConfig\n"
        "@dataclass(kw_only=True, slots=True)\n"
        "class MyConfig(RNNConfig):\n"
        "    depth: int = 3\n"
        "lm.register('model', 'mine', MyConfig)\n"
    )
    monkeypatch.setenv("LM_PLUGINS", "my_cells")
    composed = parse(compose("train", ["model=mine", "model.depth=4"]), TrainConfig)
    assert (type(composed.model).__name__, composed.model.depth) == ("MyConfig", 4)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("plugins")
def test_a_plugin_that_fails_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_cells.py").write_text("1 / 0\n")
    monkeypatch.setenv("LM_PLUGINS", "broken_cells")
    with pytest.raises(ConfigError, match="plugin broken_cells named by LM_PLUGINS: ZeroDivision"):
        compose("train")


def test_configs_of_the_working_directory_join(tmp_path: Path) -> None:
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "model" / "tiny.yaml").write_text(
        "defaults:\n  - /schema/model@_here_: gru\n  - _self_\nhidden_size: 8\n"
    )
    assert parse(compose("train", ["model=tiny"]), TrainConfig).model.hidden_size == 8


# Saved configurations


def test_a_saved_config_is_unresolved_and_names_its_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    composed = compose("train", ["model=gru", "runs=${oc.env:TOKEN}"])
    (tmp_path / "config.yaml").write_text(dump(composed))
    text = (tmp_path / "config.yaml").read_text()
    assert text.startswith("schemas:\n  model: gru\n  data: torch_source\n")
    assert "runs: ${oc.env:TOKEN}" in text
    assert "secret" not in text


def test_a_portable_config_has_no_interpolation_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    overrides = ["data.root=${oc.env:TOKEN}", "runs=${oc.env:TOKEN}", "runtime.cache=/here"]
    composed = compose("train", [*overrides, "trainer.batch_size=${trainer.window}"])
    portable = portable_config(composed)
    assert composed.data.root == "secret"  # the original keeps it
    assert (portable.data.root, portable.runs, portable.runtime.cache) == (None, "runs", "/here")
    (tmp_path / "config.yaml").write_text(dump(portable))
    assert "secret" not in (tmp_path / "config.yaml").read_text()
    loaded = load_config(tmp_path / "config.yaml")
    assert parse(loaded, TrainConfig).trainer.batch_size == 64


def test_a_name_cannot_carry_the_environment_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    composed = compose("train", ["data.root=${oc.env:TOKEN}", "name=${data.root}"])
    with pytest.raises(ConfigError):
        portable_config(composed)


GOOD = "schemas:\n  model: lstm\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD + "name: ${oc.env:HOME}\n", "holds the interpolation"),
        (GOOD + 'name: "\\x24{oc.env:HOME}"\n', "holds the interpolation"),
        (GOOD + "? ${oc.env:HOME}\n: 1\n", "holds the interpolation"),
        ("a: &a [1]\n" + GOOD, "uses YAML aliases"),
        ("schemas: {model: [*x]}\n", "uses YAML aliases"),
        ("schemas: " + "[" * 40 + "]" * 40 + "\n", "is nested deeper than 32 levels"),
        (GOOD + "name: " + "x" * (1 << 20) + "\n", "is larger than 65,536 bytes"),
        (GOOD + "name: !!python/object/apply:os.getcwd []\n", "uses the YAML tag"),
        (GOOD + "name: [\n", "cannot be read"),
        ("- 1\n", "is not a mapping"),
        ("name: x\n", "names no schemas"),
        ("schemas: {model: warp}\n", "no model is registered as 'warp'"),
        ("schemas: {modle: lstm}\n", "no modle is registered as 'lstm'"),
        ("schemas: {model: [lstm]}\n", "no model is registered as ['lstm']"),
        (GOOD + "model:\n  hiden_size: 3\n", "unknown field model.hiden_size"),
        (GOOD + "model:\n  hidden_size: abc\n", "model.hidden_size must be a whole number"),
    ],
)
def test_a_strangers_config_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load_config(path)
    assert fault in caught.value.cause


def test_an_unknown_schema_names_the_way_to_plug_it_in(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("schemas: {model: warp}\n")
    with pytest.raises(CheckpointError) as caught:
        load_config(tmp_path / "config.yaml")
    assert "LM_PLUGINS" in caught.value.remedy


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        load_config(tmp_path / "config.yaml")


# Resume


@cache
def run_of(*overrides: str) -> DictConfig:
    return compose("train", overrides)


def resumed(saved: list[str], overrides: list[str]) -> DictConfig:
    prepared = [config.prepare(override) for override in overrides]
    return resume_config(run_of(*saved), compose("train", prepared), prepared)


def test_resume_takes_limits_logging_machine_and_paths() -> None:
    overrides = ["resume=r", "trainer.max_epochs=50", "trainer.log_every=5", "runtime.threads=2"]
    result = resumed(["model=gru", "optim.lr=0.5"], [*overrides, "data.root=/elsewhere"])
    parsed = parse(result, TrainConfig)
    assert (parsed.trainer.max_epochs, parsed.trainer.log_every) == (50, 5)
    assert (parsed.runtime.threads, parsed.data.root) == (2, "/elsewhere")
    assert (parsed.resume, parsed.optim.lr) == ("r", 0.5)
    assert OmegaConf.get_type(result, "model") is registry.schema_named("model", "gru")


def test_resume_keeps_what_was_not_asked_for() -> None:
    saved = ["trainer.max_epochs=3", "data.root=/corpus", "data=ptb", "seed=7"]
    result = parse(resumed(saved, ["resume=r", "data=ptb"]), TrainConfig)
    assert (result.trainer.max_epochs, result.data.root, result.seed) == (3, "/corpus", 7)


def test_resume_fills_paths_that_were_left_out_of_the_checkpoint() -> None:
    composed = run_of("data=ptb", "data.root=/local", "seed=3")
    result = parse(resume_config(run_of("data=ptb"), composed, []), TrainConfig)
    assert (result.data.root, result.seed) == ("/local", 1)
    result = parse(resume_config(run_of("data.root=/own"), composed, []), TrainConfig)
    assert result.data.root == "/own"


@pytest.mark.parametrize(
    ("saved", "override", "cause"),
    [
        ([], "optim.lr=0.5", "optim.lr cannot change on resume: the run has 0.006, requested 0.5"),
        ([], "model=gru", "model cannot change on resume: the run has 'lstm', requested 'gru'"),
        (["model.tied=true"], "model=lstm", "model.tied cannot change on resume"),
        ([], "seed=2", "seed cannot change on resume: the run has 1, requested 2"),
        ([], "trainer.batch_size=8", "trainer.batch_size cannot change on resume"),
        ([], "init_from=x", "init_from cannot change on resume"),
        ([], "lr_scales.embedding=2", "lr_scales.embedding cannot change on resume"),
        ([], "freeze=[embedding]", "freeze cannot change on resume"),
        ([], "experiment=ptb_small", "data cannot change on resume: the run has 'torch_source'"),
    ],
)
def test_resume_refuses_what_changes_the_numbers(
    saved: list[str], override: str, cause: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resumed(saved, ["resume=r", override])
    assert caught.value.cause.startswith(cause)


@pytest.mark.parametrize(
    "override", ["optim.lr=0.5", "model=lstm", "name=here", "experiment=ptb_small"]
)
def test_resume_takes_overrides_that_change_nothing(override: str) -> None:
    saved = [override] if override.startswith("exp") else ["optim.lr=0.5", "name=here"]
    assert resumed(saved, ["resume=r", override]).resume == "r"


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["trainer.averaging.nonmonotone=5"], "kind=null averages nothing"),
        (["trainer.averaging={kind: mean, decay: 0.9}"], "kind=mean weighs all iterates alike"),
        (["trainer.clip.outlier.history=8"], "sigmas=null skips nothing"),
        (["trainer.random_window.minimum=8"], "std=null draws no lengths"),
        (["trainer.random_window.half_probability=0"], "std=null draws no lengths"),
    ],
)
def test_settings_of_what_is_off_are_refused(overrides: list[str], cause: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(compose("train", overrides), TrainConfig)
    assert cause in caught.value.cause


def test_dump_and_load_are_inverse(tmp_path: Path) -> None:
    composed = compose("train", ["experiment=ptb_medium"])
    (tmp_path / "config.yaml").write_text(dump(composed))
    assert dump(load_config(tmp_path / "config.yaml")) == dump(composed)
