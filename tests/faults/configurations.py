"""Configurations that name code: in checkpoints, on the command line, in YAML files of others."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import yaml
from payloads import executables
from stranger import checkpoint_of, seal

# A run that ends at once, should it begin.
BASE = [
    "tokenizer=word", "model.embedding_size=4", "model.hidden_size=4", "trainer.batch_size=2",
    "trainer.window=8", "trainer.max_steps=1", "trainer.max_epochs=null",
    "trainer.sample_tokens=0", "trainer.test=false", "trainer.bar=false", "schedule=constant",
]  # fmt: skip
NAMES = (
    "os.system", "torch.load", "numpy.load", "builtins.eval", "subprocess.Popen", "pickle.loads",
    "hydra.utils.instantiate", "evil.call", "evil", "lm.commands.import_", "__class__",
    "__import__('evil')", "lm.models.lstm.LSTMConfig", "../../x", "lstm/../../x", "LSTM", "lstm\n",
    "", "${oc.env:HOME}", "[lstm]",
)  # fmt: skip
GROUPS = ("model", "data", "tokenizer", "optim", "schedule", "trainer", "runtime")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that names code.

    Attributes:
        family: what it is like; a few are taken of each.
        prepare: changes a copied run to be loaded, or gives what `lm train` is told besides.
        codes: the exit codes that will do.
    """

    family: str
    name: str
    prepare: Callable[[Path], list[str] | None]
    codes: tuple[int, ...] = (2,)


@cache
def attempts() -> list[Attempt]:
    """All of them."""
    found = []
    for name in NAMES:
        for group in GROUPS:
            what = f"schemas.{group}={name!r} in a checkpoint"
            found.append(
                Attempt("schema", what, partial(_in_config, ("schemas", group), name), (4,))
            )
            what = f"{group}._target_={name!r} in a checkpoint"
            found.append(
                Attempt("target", what, partial(_in_config, (group, "_target_"), name), (4,))
            )
        what = f"kind {name!r} of a checkpoint's tokenizer"
        found.append(Attempt("tokenizer", what, partial(_in_tokenizer, name), (4,)))
    for text in COMMAND_LINES:
        # In a path such text is a name, of a folder that is not there.
        codes = (3,) if text.startswith("data.root") else (2,)
        found.append(Attempt("override", f"lm train {text}", partial(_told, [text]), codes))
    for experiment in YAML_FILES:
        for place in ("configs", "others"):
            told = [f"experiment={experiment}", *(["--config-dir=others"] * (place == "others"))]
            told = [text.replace("experiment=", f"experiment={place}_") for text in told]
            for many in ([], ["-m", "seed=1,2"]):
                what = f"{place}/experiment/{experiment}.yaml {' '.join(many)}"
                found.append(Attempt("YAML", what, partial(_told, [*told, *many])))
    return found


def _told(arguments: list[str], run: Path) -> list[str]:
    return arguments


def _in_config(place: tuple[str, str], name: str, run: Path) -> None:
    path = checkpoint_of(run) / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content[place[0]][place[1]] = name
    path.write_text(yaml.safe_dump(content))
    seal(checkpoint_of(run))


def _in_tokenizer(kind: str, run: Path) -> None:
    path = checkpoint_of(run) / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": kind}))
    seal(checkpoint_of(run))


_LOAD = "{_target_:torch.load,f:evil.pt,weights_only:false}"
COMMAND_LINES = (
    "+model._target_=torch.load",
    "model._target_=torch.load",
    "++model._target_=evil.call",
    "+_target_=torch.load",
    "++_target_=evil.call",
    "model=evil",
    "model=../../evil",
    "model@evil=lstm",
    "+evil@model=lstm",
    "tokenizer=evil.call",
    "data._target_=evil.call",
    f"+optim.x={_LOAD}",
    f"+hydra.callbacks={{x:{_LOAD}}}",
    "+hydra.callbacks.x._target_=evil.call",
    "hydra/job_logging=default",
    "hydra/hydra_logging=default",
    "hydra.launcher._target_=evil.call",
    f"+hydra.launcher.x={_LOAD}",
    "hydra.sweeper._target_=evil.call",
    f"+hydra.sweeper.params.x={_LOAD}",
    "name=${oc.env:HOME}",
    "data.root=${oc.decode:x}",
    "data.root=${evil:x}",
)

_CALL = {"_target_": "evil.call"}
_UNPICKLE = {"_target_": "torch.load", "f": "evil.pt", "weights_only": False}
_LOGGING = {"version": 1, "root": {"handlers": ["x"]}}
_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
YAML_FILES: dict[str, dict[str, object]] = {
    "callback": {"hydra": {"callbacks": {"x": _CALL}}},
    "callback_unpickles": {"hydra": {"callbacks": {"x": _UNPICKLE}}},
    "callback_by_interpolation": {
        "hydra": {"callbacks": "${oc.create:'{x:{_target_:evil.call}}'}"}
    },
    "launcher": {"hydra": {"launcher": _CALL}},
    "launcher_below": {"hydra": {"launcher": {"_target_": _LAUNCHER, "x": _CALL}}},
    "launcher_by_text": {"hydra": {"launcher": "${oc.create:'{_target_: evil.call}'}"}},
    "sweep": {
        "hydra": {
            "mode": "MULTIRUN",
            "sweeper": {"params": {"+hydra.job.env_set.LM_PLUGINS": "evil"}},
        }
    },
    "overrides": {
        "hydra": {
            "mode": "MULTIRUN",
            "overrides": {"hydra": ["+hydra.job.env_set.LM_PLUGINS=evil"]},
        }
    },
    "task_overrides": {"hydra": {"overrides": {"task": ["+hydra.job.env_set.LM_PLUGINS=evil"]}}},
    "sweeper": {"hydra": {"sweeper": _UNPICKLE}},
    "handler": {"hydra": {"job_logging": {**_LOGGING, "handlers": {"x": {"class": "evil.call"}}}}},
    "factory": {"hydra": {"hydra_logging": {**_LOGGING, "handlers": {"x": {"()": "evil.call"}}}}},
    "plugin": {"hydra": {"job": {"env_set": {"LM_PLUGINS": "evil"}}}},
    "compiler": {"hydra": {"job": {"env_set": {"CC": "./evil.sh"}}}},
    "model": {"model": _UNPICKLE},
    "root": _CALL,
    "resolver": {"name": "${evil:x}"},
}


def evil_files(folder: Path, canary: Path) -> None:
    """A module, a pickle and a script that touch the canary, and YAML files that name them."""
    content = executables(canary)
    touch = content["Python"].decode()
    (folder / "evil.py").write_text(f"{touch}\ndef call(*a, **k):\n    {touch}\n")
    (folder / "evil.pt").write_bytes(content["torch.save"])
    (folder / "evil.sh").write_bytes(content["shell script"])
    (folder / "evil.sh").chmod(0o755)
    for place in ("configs", "others"):
        experiments = folder / place / "experiment"
        experiments.mkdir(parents=True)
        for name, tree in YAML_FILES.items():
            text = f"# @package _global_\n{yaml.safe_dump(tree)}"
            (experiments / f"{place}_{name}.yaml").write_text(text)
