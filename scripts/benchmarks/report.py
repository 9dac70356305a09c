"""Results for people: a line as each row completes, and `docs/benchmarks.md`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import NotMeasured, Outcome, Result
from benchmarks.rows import OTHERS, TRAINING

_EXPLANATION = """\
# Benchmarks

Our training step against a textbook loop with the same model, dropout, initial weights, batches and
data: `nn.Embedding`, a multi-layer `nn.LSTM`, `nn.GRU` or `nn.RNN`, `nn.Linear`, log-softmax and
NLL, `clip_grad_norm_` and SGD by hand in fp32 at torch's default settings, which is what most
people run. This file is written by `scripts/benchmark.py --docs`.

## How to read it

- The two sides take turns in one process after warm-up, each under its own settings of torch and of
  the allocator; the first step of a turn is not counted. Before anything is timed, both have to
  give the same loss and gradient norm on the same batch without dropout.
- **ratio** is above 1 where ours is better, whatever the unit. Rates are of medians; ± is the
  interquartile range.
- A row without a suffix is ours at `runtime.precision=auto` against the textbook in fp32.
  `_fp32` is ours in fp32 against the same. `_bf16_equal` is ours against the textbook under bf16
  autocast: equal precision.
- **GFLOP** of a step are 6 (parameters in products)(tokens); the embedding is not counted.
- **of product rate** is the time that the step's products take when nothing else is done, divided
  by the time of our step. They are done by `torch.mm` at the step's own shapes and our precision:
  recurrent products one time step at a time, the output layer in slices that stay in reach. 100 %
  would be a step that does nothing else; products on matrices packed beforehand can exceed it.
- ms are of one step, or of one run of the other rows. Peak memory is that of one fresh process a
  variant, Python and torch included; on a GPU, of its memory.
"""


_COLUMNS = (
    "ours", "textbook", "unit", "ratio", "precision", "ours ms", "textbook ms",
    "GFLOP", "GFLOP/s", "of product rate",
)  # fmt: skip


def heading() -> str:
    """Over the lines."""
    return (
        f"{'row':28}{'ours':>12}{'textbook':>12} {'unit':9}{'ratio':>7}"
        f"{'ours ms':>16}{'textbook ms':>16}{'GFLOP/s':>9}{'of rate':>9}"
    )


def line(outcome: Outcome) -> str:
    """One result as it completes."""
    if isinstance(outcome, NotMeasured):
        return f"{outcome.name:28}not measured: {outcome.reason}"
    cells = _cells(outcome)
    return (
        f"{outcome.name:28}{cells['ours']:>12}{cells['textbook']:>12} {outcome.unit:9}"
        f"{cells['ratio']:>7}{cells['ours ms']:>16}{cells['textbook ms']:>16}"
        f"{cells['GFLOP/s']:>9}{cells['of product rate']:>9}"
    )


def _cells(result: Result) -> dict[str, str]:
    known = result.details

    def milliseconds(side: str) -> str:
        if f"{side}_ms" not in known:
            return ""
        return f"{_number(known[f'{side}_ms'])} ± {_number(known[f'{side}_spread_ms'])}"

    return {
        "ours": _number(result.ours),
        "textbook": _number(result.textbook),
        "unit": result.unit,
        "ratio": f"{result.ratio:.2f}",
        "ours ms": milliseconds("ours"),
        "textbook ms": milliseconds("textbook"),
        "GFLOP": f"{known['gflop']:.4g}" if "gflop" in known else "",
        "GFLOP/s": f"{known['ours_gflop_per_s']:.0f}" if "gflop" in known else "",
        "of product rate": f"{known['fraction']:.0%}" if "fraction" in known else "",
        "precision": known.get("precision", ""),
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def read_results(path: Path) -> list[Result]:
    """What `--json` wrote.

    Raises:
        ValueError: the file is not that; one line.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return [Result.from_json(item) for item in data]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"cannot use {path} as results: {error}") from error


def document(outcomes: Sequence[Outcome], here: dict[str, str], command: str) -> str:
    """The whole of `docs/benchmarks.md`.

    Args:
        outcomes: of other machines too; of two results of a row on one machine the later counts.
        here: this machine, to which what was not measured belongs.
    """
    sections = [_EXPLANATION, "\n".join(_row_list())]
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    missing = [outcome for outcome in outcomes if isinstance(outcome, NotMeasured)]
    machines: dict[str, list[Result]] = {}
    for result in results:
        machines.setdefault(json.dumps(result.details.get("machine", {})), []).append(result)
    for key, group in machines.items():
        machine = json.loads(key)
        latest: dict[str, Outcome] = {result.name: result for result in group}
        if machine == here:
            latest.update({m.name: m for m in missing if m.name not in latest})
        sections.append(_section(machine, _ordered(latest.values()), command))
    if not any(json.loads(key).get("device") == "cuda" for key in machines):
        sections.append("## NVIDIA GPU\n\nNot measured: no CUDA device at hand. It runs there with")
        sections[-1] += " `scripts/benchmark.py --json FILE`, and `--merge FILE` brings it here.\n"
    return "\n".join(sections)


def _row_list() -> Iterator[str]:
    yield "| row | what it is |"
    yield "|---|---|"
    for name, row in TRAINING.items():
        extra = "; peak memory too" if row.memory else ""
        yield f"| `{name}` | {row.description}{extra}{'; CUDA only' if row.cuda_only else ''} |"
    for name, what in OTHERS.items():
        yield f"| `{name}` | {what} |"
    yield ""


def _ordered(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """By the order of the rows, results of one row together."""
    names = [*TRAINING, *OTHERS]

    def place(outcome: Outcome) -> int:
        owners = [name for name in names if outcome.name.startswith(name)]
        return names.index(max(owners, key=len)) if owners else len(names)

    return sorted(outcomes, key=place)


def _section(machine: dict[str, Any], outcomes: Sequence[Outcome], command: str) -> str:
    title = machine.get("GPU") or machine.get("CPU", "a machine that is not described")
    facts = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("GPU", "CPU", "device"))
    known = [outcome.details for outcome in outcomes if isinstance(outcome, Result)]
    runs = dict.fromkeys((k.get("date", "?"), k.get("command", command)) for k in known)
    lines = [
        f"## {title}",
        "",
        f"{facts[:1].upper()}{facts[1:]}. Measured with",
        "",
        *(f"    {command}  # {date}" for date, command in runs),
        "",
        f"| result | {' | '.join(_COLUMNS)} |",
        f"|---|{'--:|' * len(_COLUMNS)}",
    ]
    for outcome in outcomes:
        if isinstance(outcome, NotMeasured):
            blanks = " |" * (len(_COLUMNS) - 1)
            lines.append(f"| `{outcome.name}` | not measured: {outcome.reason} |{blanks}")
            continue
        cells = _cells(outcome)
        cells["ratio"] = f"**{cells['ratio']}**"
        lines.append(f"| `{outcome.name}` | {' | '.join(cells[name] for name in _COLUMNS)} |")
    return "\n".join(lines) + "\n"
