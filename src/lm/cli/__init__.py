"""The command line: `lm <verb> [overrides]` and one console script per verb.

This module imports neither torch nor Hydra, so that `lm --help` answers at once.
"""

import difflib
import sys
from collections.abc import Callable, Sequence

from lm import __version__

VERBS = {
    "prepare": "turn text files into tokens by all cores, for lm train to find: data= tokenizer=",
    "train": "train a model, continue a run (resume=), or start from its weights (init_from=)",
    "sweep": "search for better settings: lm sweep sweep=lstm trials=30 workers=2",
    "reproduce": "run a published result and compare: lm reproduce NAME, or --list",
    "verify-resume": "interrupt a run of your configuration, continue it, compare every bit",
    "evaluate": "exact loss, perplexity and bits per byte of a run; method=all for every method",
    "compare": "runs side by side: lm compare RUN…, what differs, what came of it, curves",
    "inspect": "gradients over lag, gates, effective context, updates: lm inspect RUN…",
    "score": "surprisal by word or token of a text, or an n-best list ranked anew",
    "generate": "sample text from a run; on a terminal without a prompt, a dialogue",
    "export": "write a run as ONNX or torch programs: lm export run=RUN output=FOLDER",
    "import": "turn pytorch/examples-style weights into a run: lm import PATH vocabulary=FILE",
}

_HELP = """\
lm: train, evaluate, sample and reuse recurrent language models

usage: lm <verb> [group=option] [field=value] …

{verbs}

  lm train                          the default model on the default corpus
  lm train model=rnn optim.lr=0.01  another cell, another learning rate
  lm train -m model=rnn,lstm        one run for each
  lm generate run=runs/default      from the newest run of name=default
  lm <verb> --help                  every group, option and field
  lm <verb> --cfg job               the configuration that would be used

exit codes: 0 done · 2 configuration · 3 data · 4 checkpoint · 5 non-finite training ·
            6 storage · 7 out of memory · 8 a check failed (reproduction, resume, audit, export) ·
            9 another process of the run was lost · 75 stopped by a signal, saved if there was
            anything to save
LM_TRACEBACK=1 shows where an error comes from.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """`lm`: run a verb and give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        return _guarded(lambda: _say(_HELP.format(verbs=_verb_lines())))
    if given[0] == "--version":
        return _guarded(lambda: _say(f"lm {__version__}\n"))
    verb, *rest = given
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; nearest: {close[0]}" if close else ""
        sys.stderr.write(f"lm: error: no verb {verb!r}{hint}\n  Verbs: {', '.join(VERBS)}.\n")
        return 2
    return _run(verb, rest)


def prepare() -> int:
    """`lm-prepare`."""
    return _run("prepare", sys.argv[1:])


def train() -> int:
    """`lm-train`."""
    return _run("train", sys.argv[1:])


def sweep() -> int:
    """`lm-sweep`."""
    return _run("sweep", sys.argv[1:])


def reproduce() -> int:
    """`lm-reproduce`."""
    return _run("reproduce", sys.argv[1:])


def verify_resume() -> int:
    """`lm-verify-resume`."""
    return _run("verify-resume", sys.argv[1:])


def evaluate() -> int:
    """`lm-evaluate`."""
    return _run("evaluate", sys.argv[1:])


def inspect() -> int:
    """`lm-inspect`."""
    return _run("inspect", sys.argv[1:])


def generate() -> int:
    """`lm-generate`."""
    return _run("generate", sys.argv[1:])


def compare() -> int:
    """`lm-compare`."""
    return _run("compare", sys.argv[1:])


def score() -> int:
    """`lm-score`."""
    return _run("score", sys.argv[1:])


def export() -> int:
    """`lm-export`."""
    return _run("export", sys.argv[1:])


def import_() -> int:
    """`lm-import`."""
    return _run("import", sys.argv[1:])


def _run(verb: str, arguments: Sequence[str]) -> int:
    def action() -> int:
        if verb == "reproduce" and "--list" in arguments:
            from lm.cli.rows import listing

            return _say(listing(arguments))
        from lm.cli.launch import launch

        return launch(verb, arguments)

    return _guarded(action, verb)


def _guarded(action: Callable[[], int], verb: str = "") -> int:
    """The action's exit code, or that of what it raises."""
    from lm.cli.report import report

    try:
        code = action()
        sys.stdout.flush()
    except BaseException as error:
        return report(error, verb=verb)
    return code


def _say(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _verb_lines() -> str:
    return "\n".join(f"  {verb:15}{summary}" for verb, summary in VERBS.items())
