"""Random command lines of `lm`: sound, on the border, and beyond it."""

import random
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any

from lm.config import ROOTS
from lm.config.fields import PATH_FIELDS
from lm.config.registry import BASES, schema_named, schema_names

TINY = [
    "data=text", "data.path=text.txt", "tokenizer=byte", "model.embedding_size=4",
    "model.hidden_size=4", "trainer.batch_size=2", "trainer.window=8", "trainer.valid_streams=2",
    "trainer.sample_tokens=0", "trainer.test=false", "trainer.bar=false", "schedule=constant",
    "runtime.kernels=torch", "runtime.threads=1",
]  # fmt: skip
NEEDED = {
    "train": TINY,
    "verify-resume": TINY,
    "reproduce": ["ptb_small"],
    "evaluate": ["run=run", "window=16", "splits=[valid]"],
    "generate": ["run=run", "num_tokens=2"],
    "import": ["weights.pt", "vocabulary=words.txt"],
}
VERBS = (*NEEDED, *("train",) * 13, "evaluate")
OVERLAYS = (
    "experiment=ptb_small", "experiment=awd_lstm_ptb", "debug=smoke", "debug=overfit",
    "experiment=nope", "debug=null", "local=x",
)  # fmt: skip
# What makes a sound run long or large, or leaves the folder it works in.
KEPT = frozenset({"num_tokens", "num_samples", "trainer.sample_tokens", "runtime.profile"})
BORDERS = (
    "0", "1", "-1", "2", "1e-45", "1e-38", "1e38", "0.9999999999999999", "2147483648", "-0.0",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e400", "0x10", "1_000",
)  # fmt: skip
BEYOND = ("nan", "inf", "-inf", "-5", "1.5", "-0.1", "1e30", "-1e30", "9" * 40, "9" * 5000)
OTHER_TYPES = (
    "abc", "null", "true", "''", "", "[]", "{}", "[1,2]", "[[1],[2]]", "{a:1}", "{a:{b:[1,{c:2}]}}",
    "'1'", "1,2", "[nan]", "[null]", "{1:2}", "{true:1}", "{'':1}", "???", "[???]", "{a:???}",
)  # fmt: skip
INTERPOLATIONS = (
    "${seed}", "${nope}", "${oc.env:HOME}", "${oc.env:NOPE}", "${oc.decode:1}", "${model}",
    "${.lr}", "${..x}", "${${seed}}", "${", "${}", "$", "${hydra.job.num}", "${hydra:job.num}",
    "${now:%Y}", "${oc.select:seed}", "${optim.lr}", "${trainer.window}", "\\${seed}", "'${seed}'",
    "${oc.create:x}", "[${seed}]", "{a:${seed}}", "${model.hidden_size}", "${oc.dict.keys:model}",
)  # fmt: skip
SWEEPS = (
    "choice(1,2)", "range(1,3)", "interval(0,1)", "glob(*)", "sort(3,1)", "shuffle(1,2)",
    "range(0)", "tag(x,choice(1))", "float(1)", "int(1.5)", "bool(x)", "str(1)", "json_str(1)",
    "extend_list(1)", "int(nan)", "float(choice(1,2))", "range(1,1e9)", "choice()", "list(1)",
)  # fmt: skip
HYDRA = (
    "hydra.verbose=true", "hydra.job.name=x", "hydra/launcher=basic", "hydra/launcher=nope",
    "hydra.mode=MULTIRUN", "hydra.mode=x", "hydra=null", "~hydra", "hydra.searchpath=[nowhere]",
    "hydra.searchpath=[file:///nowhere]", "hydra.searchpath=null", "hydra.job=null",
    "hydra.output_subdir=null", "+hydra.x=1", "hydra/job_logging=default", "hydra.sweeper=null",
    "hydra/help=default", "hydra.callbacks={a:1}", "+hydra.job.env_set.LM_FUZZ=1", "hydra.run=null",
)  # fmt: skip
FLAGS = (
    "-m", "-m", "--multirun", "--cfg=x", "--nope", "-cn=x", "-cn=evaluate", "-cd=.", "-cd=nowhere",
    "--", "-", "--run", "--resolve", "--package=x", "=", "==", "x=y=z", "a", "@x=1", "=1", "~",
)  # fmt: skip
Field = tuple[str, Any, Any]  # dotted name, type, default
MARKS = ("~", "+", "++", "~~", "+++", "-", " ")


def command_line(draws: random.Random) -> list[str]:
    """A verb and what it is told: half of them nothing that is wrong by itself."""
    verb = draws.choice(VERBS)
    given = list(NEEDED[verb])
    choices = _choices(verb, draws)
    if choices.get("data", "text") != "text":
        given = [text for text in given if not text.startswith("data")]
    given += [f"{group}={option}" for group, option in choices.items()]
    known = list(fields_of(verb, choices))
    for _ in range(draws.choice((0, 1, 1, 2, 3, 5))):
        name, kind, default = draws.choice(known)
        if name not in KEPT | PATH_FIELDS:
            given.append(f"{name}={_sound(kind, default, draws)}")
    for _ in range(draws.choice((0, 0, 0, 0, 1, 1, 2, 3))):
        given.append(_unsound(known, draws))
    return [verb, *(text.replace("\0", "") for text in given)]


def _choices(verb: str, draws: random.Random) -> dict[str, str]:
    groups = [name for name in BASES if name in {field.name for field in fields(ROOTS[verb])}]
    drawn = {}
    for group in draws.sample(groups, draws.randint(0, min(3, len(groups)))):
        if group not in ("data", "trainer", "runtime"):
            drawn[group] = draws.choice(schema_names(group))
        elif group == "data":
            drawn[group] = draws.choice(("text", "text", "text", "ptb"))
    return drawn


def fields_of(verb: str, choices: dict[str, str]) -> Iterator[Field]:
    """Each field of the chosen schemas."""
    usual = {"model": "lstm", "data": "text", "optim": "adamw", "schedule": "constant"}
    hints = typing.get_type_hints(ROOTS[verb])
    for field in fields(ROOTS[verb]):
        name, kind = field.name, hints[field.name]
        if name in BASES:
            if verb == "evaluate" and name not in choices:
                continue
            option = {**usual, "tokenizer": "byte", **choices}.get(name, "default")
            schema = schema_named(name, option)
            assert schema is not None
            yield from _leaves(schema, f"{name}.")
        elif is_dataclass(kind):
            yield from _leaves(kind, f"{name}.")
        else:
            yield name, kind, field.default


def _leaves(schema: Any, prefix: str) -> Iterator[Field]:
    hints = typing.get_type_hints(schema)
    for field in fields(schema):
        if is_dataclass(hints[field.name]):
            yield from _leaves(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hints[field.name], field.default


def _sound(kind: Any, default: Any, draws: random.Random) -> str:
    """A value of the type, which the field may yet refuse."""
    if type(default) in (int, float) and default:
        return str(type(default)(default * draws.choice((0.5, 0.9, 1, 1, 1.5, 2))))
    if isinstance(kind, UnionType):
        kind = draws.choice(kind.__args__)
    if kind is type(None):
        return "null"
    if kind is bool:
        return draws.choice(("true", "false"))
    if kind is int:
        return str(draws.choice((1, 2, 3, 4, 5, 8, 16)))
    if kind is float:
        return str(draws.choice((0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 1e-3, 1e-8)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return draws.choice([member.name for member in kind])
    origin = typing.get_origin(kind)
    if origin is list:
        (item,) = typing.get_args(kind)
        return f"[{','.join(_sound(item, None, draws) for _ in range(draws.randrange(4)))}]"
    if origin is dict:
        return "{head: 0.5}"
    return draws.choice(("embedding", "head", "test", "24k", "cpu", "x", "word"))


def _unsound(known: list[Field], draws: random.Random) -> str:
    """Something that is most likely wrong."""
    if draws.random() < 0.2:
        return draws.choice((*HYDRA, *FLAGS, *OVERLAYS))
    name = draws.choice(known)[0] if draws.random() < 0.85 else draws.choice((*BASES, "experiment"))
    pool = draws.choice((BORDERS, BEYOND, OTHER_TYPES, INTERPOLATIONS, SWEEPS, None, None))
    value = draws.choice(pool) if pool else _garbage(draws)
    if name in PATH_FIELDS:  # stay in the folder, whatever it is called
        value = value.lstrip("/~.\n ").replace("..", "")
    way = draws.randrange(10)
    if way == 0:
        name = _typo(name, draws)
    elif way == 1:
        return draws.choice(MARKS) + name + draws.choice(("", f"={value}"))
    elif way == 2:
        name += draws.choice((".x", ".0", "[0]", "@x", "@x:y", "@_global_", ".", ".x.y.z", "/x"))
    return f"{name}={value}"


def _typo(name: str, draws: random.Random) -> str:
    k = draws.randrange(len(name))
    return name[:k] + draws.choice(("", name[k] * 2, "x", ".", "_", "É")) + name[k + 1 :]


def _garbage(draws: random.Random) -> str:
    """Text without rule: of all of Unicode, of the grammar's own marks, nested deeply, or long."""
    way = draws.randrange(5)
    if way == 0:
        ends = draws.choices((0x7F, 0x2FF, 0xFFFF, 0x10FFFF), k=draws.randint(1, 20))
        return "".join(chr(draws.randrange(1, end)) for end in ends)
    if way == 1:
        return "".join(draws.choice("()[]{}'\"\\,:=$ \t\n~@#*.+-1ea") for _ in range(20))
    if way == 2:
        depth = draws.choice((3, 30, 300))
        opening, closing = draws.choice((("[", "]"), ("{a:", "}"), ("(", ")"), ("choice(", ")")))
        return opening * depth + "1" + closing * draws.choice((depth, depth, depth - 1))
    if way == 3:
        return draws.choice(("x", "1", "é", "[1],", "a.")) * draws.choice((100, 5000))
    return draws.choice(("<unk>", "\ud800", "a b", "#x", "%s", "{}", "%(x)s", "\x1b[2J", "\r"))
