"""Configurations that are wrong, and how each is answered."""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, slots=True)
class Bad:
    """A command line, or a place, that is wrong.

    Attributes:
        name: what is wrong with it.
        arguments: of `lm`, set apart by spaces; the verb first where it is not `train`.
        says: a part of what is said on standard error.
        code: the exit code.
        files: what stands in the working directory, by path.
        family: what it is like; a few are taken of each.
    """

    name: str
    arguments: str
    says: str
    code: int = 2
    files: tuple[tuple[str, str], ...] = ()
    family: str = ""


NAMES = (
    Bad("a typo", "model.hiden_size=3", "model.hiden_size; nearest: model.hidden_size"),
    Bad("a typo, with a plus", "+trainer.lrr=1 data=text data.path=x", "unknown field trainer.lrr"),
    Bad("a typo, with two", "++optim.lrr=1", "unknown field optim.lrr; nearest: optim.lr"),
    Bad("a typo of a group", "modle=lstm", "unknown field modle; nearest: model"),
    Bad("a typo below a group", "model.dropout.embeding=0", "nearest: model.dropout.embedding"),
    Bad("a typo in a mapping", "+model={hiden:3}", "unknown field model.hiden"),
    Bad("a field that is new", "+optim.warp=1", "unknown field optim.warp"),
    Bad("a group that is new", "+experimnt=ptb_small", "unknown field experimnt"),
    Bad("a field of another cell", "model=gru model.forget_bias=1", "It belongs to model="),
    Bad("a field taken away", "~optim.lr", "cannot delete the field optim.lr"),
    Bad("a group taken away", "~optim", "optim is required"),
    Bad("no such option", "model=lsmt", "no option 'lsmt' in group model; nearest: lstm"),
    Bad("no such optimiser", "optim=adma", "no option 'adma' in group optim; nearest: adam"),
    Bad("no such experiment", "experiment=ptb_smal", "nearest: ptb_small"),
    Bad("no such verb", "trian seed=1", "no verb 'trian'; nearest: train"),
    Bad("no such enum member", "data.unit=lin", "data.unit must be one of stream, document, line"),
    Bad("no such head", "model.head=softmx", "Set model.head=softmax."),
    Bad("no such flag", "--nope", "unrecognized arguments: --nope"),
    Bad("a required field left out", "evaluate", "run is required"),
)  # fmt: skip

GRAMMAR = (
    Bad("no equals sign", "model", "expected <field>=<value>, got 'model'"),
    Bad("no field", "=1", "expected <field>=<value>, got '=1'"),
    Bad("a bracket left open", "seed=(", "cannot read the value of seed: '('"),
    Bad("a quote left open", "seed='1", "cannot read the value of seed"),
    Bad("nested without end", f"seed={'[' * 300}", "cannot read the value of seed"),
    Bad("a sweep without -m", "seed=1,2", "Add -m for a run with each"),
    Bad("a sweep over nothing", "-m seed=range(0)", "the sweep has no job"),
    Bad("an unknown interpolation", "optim.lr=${nope}", "interpolation key 'nope' not found"),
    Bad("an interpolation of itself", "seed=${seed}", "seed: recursive interpolation detected"),
    Bad("the environment in a number", "seed=${oc.env:SHLVL}", "seed may not call a resolver"),
    Bad("a resolver", "data.unit=${oc.decode:x}", "data.unit may not call a resolver"),
    Bad("a number without end", f"seed={'9' * 5000}", "no number of 5,000 characters"),
    Bad("text for a number", "seed=abc", "seed must be a whole number, got 'abc'"),
    Bad("a fraction for a count", "seed=1.5", "seed must be a whole number, got 1.5"),
    Bad("a list for a number", "seed=[1,2]", "seed must be a whole number, got [1, 2]"),
    Bad("a mapping for a choice", "data.unit={a:1}", "data.unit cannot be {'a': 1}"),
    Bad("a number for a list", "model.layer_sizes=3", "model.layer_sizes must be a list, got 3"),
    Bad("a mapping for a list", "model.layer_sizes={a:1}", "a list stands where a mapping belongs"),
    Bad("a list in a list", "freeze=[[head]]", "freeze[0] must be text, got ['head']"),
    Bad("a list in a mapping", "lr_scales={head:[1]}", "lr_scales.head must be a number, got [1]"),
    Bad("a number for a part", "model.dropout=0.5", "must be a mapping of fields, got 0.5"),
    Bad("nothing for a number", "seed=null", "seed must not be null"),
    Bad("nothing for a group", "optim=null", "optim takes the name of an option, got 'null'"),
    Bad("neither true nor false", "model.tied=maybe", "model.tied must be true or false"),
)  # fmt: skip

RANGES = (
    Bad("a rate below 0", "optim.lr=-1", "optim.lr must be a finite number > 0, got -1.0"),
    Bad("a rate that is none", "optim.lr=nan", "optim.lr must be a finite number > 0, got nan"),
    Bad("a rate of 0", "optim.lr=0", "optim.lr must be a finite number > 0, got 0.0"),
    Bad("an endless rate", "optim.lr=inf", "optim.lr must be a finite number > 0, got inf"),
    Bad("an epsilon of 0", "optim.eps=0", "optim.eps must be a finite number > 0, got 0.0"),
    Bad("an epsilon that rounds to 0", "optim.eps=1e-300", "optim.eps must be >= 1e-37"),
    Bad("a beta of 1", "optim.beta1=1", "optim.beta1 must be a number in [0, 1), got 1.0"),
    Bad("momentum of 1", "optim=sgd optim.momentum=1", "optim.momentum must be a number in [0, 1)"),
    Bad("decay below 0", "optim.weight_decay=-0.1", "optim.weight_decay must be a finite"),
    Bad("a scale below 0", "lr_scales.head=-1", "lr_scales.head must be a finite number >= 0"),
    Bad("no window", "trainer.window=0", "trainer.window must be >= 1, got 0"),
    Bad("a batch below 0", "trainer.batch_size=-3", "trainer.batch_size must be >= 1, got -3"),
    Bad("a batch of a trillion", f"trainer.batch_size={10**12}", "trainer.batch_size must be <="),
    Bad("steps below 0", "trainer.max_steps=-1", "trainer.max_steps must be >= 1, got -1"),
    Bad("steps beyond 64 bits", f"trainer.max_steps={10**30}", "trainer.max_steps must be <="),
    Bad("no epochs", "trainer.max_epochs=0", "trainer.max_epochs must be >= 1, got 0"),
    Bad("time below 0", "trainer.max_seconds=-1 schedule=constant", "trainer.max_seconds must be"),
    Bad("dropout of everything", "model.dropout.output=1.5", "must be a number in [0, 1), got 1.5"),
    Bad("dropout below 0", "model.dropout.output=-0.1", "must be a number in [0, 1), got -0.1"),
    Bad("dropout that is none", "model.dropout.output=nan", "must be a number in [0, 1), got nan"),
    Bad("no units", "model.hidden_size=0", "model.hidden_size must be >= 1, got 0"),
    Bad("units below 0", "model.hidden_size=-1", "model.hidden_size must be >= 1, got -1"),
    Bad("a billion units", f"model.hidden_size={10**9}", "model.hidden_size must be <= 1048576"),
    Bad("no layers", "model.num_layers=0", "model.num_layers must be >= 1, got 0"),
    Bad("a layer without units", "model.layer_sizes=[8,0]", "layer_sizes must be >= 1, got 0"),
    Bad("a clip below 0", "trainer.clip.norm=-1", "trainer.clip.norm must be a finite number > 0"),
    Bad("a clip that is none", "trainer.clip.norm=nan", "clip.norm must be a finite number > 0"),
    Bad("warm-up below 0", "schedule.warmup_steps=-1", "schedule.warmup_steps must be >= 0"),
    Bad("a factor below 1", "schedule=step schedule.factor=0.5", "factor must be >= 1, got 0.5"),
    Bad("milestones that fall", "schedule=step schedule.milestones=[3,2]", "must rise from 1 on"),
    Bad("a split of everything", "data.valid_fraction=1", "data.valid_fraction"),
    Bad("threads below 0", "runtime.threads=-1", "runtime.threads must be >= 1, got -1"),
    Bad("no vocabulary", "tokenizer.vocab_size=3", "tokenizer.vocab_size must be >= 256, got 3"),
    Bad("a name outside runs", "name=../up", "name must be a folder name inside runs"),
    Bad("heat that is none", "generate run=r temperature=nan", "temperature must be a finite"),
    Bad("top-k below 0", "generate run=r top_k=-1", "top_k must be >= 1, got -1"),
    Bad("top-p above 1", "generate run=r top_p=1.5", "top_p must be a number in (0, 1], got 1.5"),
    Bad("no tokens", "generate run=r num_tokens=0", "num_tokens must be >= 1, got 0"),
    Bad("no streams", "evaluate run=r streams=0", "streams must be >= 1, got 0"),
    Bad("no such split", "evaluate run=r splits=[dev]", "splits must be one of train, valid, test"),
)  # fmt: skip

TINY = "data=text data.path=text.txt tokenizer=byte"
CONFLICTS = (
    Bad("two ways to clip", "trainer.clip.norm=1 trainer.clip.value=1", "exclude each other"),
    Bad("no end", "trainer.max_epochs=null", "the run has no end: every trainer.max_* is null"),
    Bad("time and a horizon", "trainer.max_seconds=9", "gives the run no length in steps"),
    Bad("more passes than streams", "trainer.accumulate=99", "exceeds trainer.batch_size=16"),
    Bad("sizes and layers", "model.num_layers=3 model.layer_sizes=[8,8]", "contradicts model."),
    Bad("an effect of nothing", "trainer.averaging.decay=0.5", "kind=null averages nothing"),
    Bad("a vocabulary of nothing", "extend_vocabulary=true", "needs a vocabulary to extend"),
    Bad("nesterov alone", "optim=sgd optim.nesterov=true", "needs optim.momentum > 0"),
    Bad("a method's setting", "evaluate run=r cache.window=9", "has no effect with method=static"),
    Bad("text without a path", "data=text", "data=text needs data.path or data.train"),
    Bad(
        "lengths to draw for ever",
        f"{TINY} trainer.random_window.std=2 trainer.max_epochs=null trainer.max_steps={10**12}",
        "draws the length of each of 1,000,000,000,000 steps",
    ),
    Bad("a part that is not there", f"{TINY} freeze=[nope]", "no parameter begins with 'nope'"),
)  # fmt: skip

GONE = "runtime.device=cuda is not available here; available: cpu"
MACHINE = (
    Bad("no such GPU", "runtime.device=cuda:99", "runtime.device=cuda:99 is not available here"),
    Bad("no such device", "runtime.device=tpu", "is not available here; available:"),
    *(() if torch.cuda.is_available() else (Bad("no GPU", "runtime.device=cuda", GONE),)),
    Bad("a place that takes no folder", "runs=/proc/lm", "/proc is not a writable folder", 6),
    Bad("a run of another", "resume=run", "", 6),
    Bad("runs in a file", "runs=taken", "taken is not a writable folder", 6, (("taken", ""),)),
    Bad("a sweep in a file", "-m seed=1,2 runs=taken", "cannot create taken", 6, (("taken", ""),)),
)  # fmt: skip


def _yaml(text: str, name: str = "model/mine") -> tuple[tuple[str, str], ...]:
    return ((f"configs/{name}.yaml", text),)


LSTM = "defaults:\n  - /schema/model@_here_: lstm\n  - _self_\n"
FILES = (
    Bad("YAML cut off", "model=mine", "invalid YAML: ", files=_yaml("hidden_size: [1\n")),
    Bad("YAML with tabs", "model=mine", "invalid YAML: ", files=_yaml("a:\n\t- 1\n")),
    Bad("a list", "model=mine", "mine", files=_yaml("- 1\n- 2\n")),
    Bad("a text", "model=mine", "unknown field model.hidden size of three",
        files=_yaml("hidden size of three\n")),
    Bad("an unknown key", "model=mine", "unknown field model.x", files=_yaml(f"{LSTM}x: 1\n")),
    Bad("an ill-typed value", "model=mine", "model.hidden_size must be a whole number, got 'a'",
        files=_yaml(f"{LSTM}hidden_size: a\n")),
    Bad("a value out of range", "model=mine", "model.hidden_size must be >= 1, got 0",
        files=_yaml(f"{LSTM}hidden_size: 0\n")),
    Bad("a default that is not there", "model=mine", "nope",
        files=_yaml("defaults:\n  - /schema/model@_here_: nope\n")),
    Bad("defaults that are no list", "model=mine", "mine", files=_yaml("defaults: {a: 1}\n")),
    Bad("a typo in an overlay", "experiment=mine", "unknown field optim.lrr",
        files=_yaml("# @package _global_\noptim:\n  lrr: 3\n", "experiment/mine")),
    Bad("not UTF-8", "model=mine", "is not UTF-8: invalid start byte",
        files=_yaml("hidden_size: \udcff\n")),
    Bad("a key twice", "model=mine", "mine", files=_yaml(f"{LSTM}bias: 1\nbias: 2\n")),
    Bad("--config-dir that is not there", "--config-dir=nowhere", "no configuration folder "),
    Bad("--config-name that is not there", "--config-name=nowhere", "no configuration named"),
)  # fmt: skip

FAMILIES = {
    "names": NAMES,
    "grammar": GRAMMAR,
    "ranges": RANGES,
    "conflicts": CONFLICTS,
    "machine": MACHINE,
    "files": FILES,
}
BAD = [replace(bad, family=family) for family, group in FAMILIES.items() for bad in group]
