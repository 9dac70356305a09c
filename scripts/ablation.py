"""What each part of the modelling brings on little text: the first tenth of the Penn Treebank.

Every condition has the same number of parameters, the same limit of epochs, the same patience and
the same number of tuning trials: a Latin hypercube over its own space, judged on the validation
split. The best trial is then trained with fresh seeds; the table has the mean and standard
deviation of their test perplexities, and whether each step has the sign that the literature leads
one to expect.

    python scripts/ablation.py --data-root <folder with the PTB splits> --output docs/results

Runs are kept in `--folder`, and what is done is not done again: stop it and call it again.
"""

import argparse
import datetime
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Space = Mapping[str, tuple[str, ...]]

PATIENCE = 6
COMMON = (
    "data=ptb", "tokenizer=word", "model=lstm", "model.num_layers=2", "model.tied=true",
    "model.embedding_size=null", "model.init.embedding.kind=uniform",
    "model.init.embedding.scale=0.1", "optim=adam", "schedule=plateau",
    "trainer.batch_size=20", "trainer.window=35", "trainer.clip.norm=1.0",
    "trainer.valid_every=null", "trainer.valid_streams=40", "trainer.test=false",
    f"trainer.patience={PATIENCE}",
    "trainer.sample_tokens=0", "trainer.bar=false", "trainer.log_every=100", "trainer.keep=1",
    "runtime.threads=1",
)  # fmt: skip
_RATES: Space = {"optim.lr": ("1.5e-3", "3e-3", "6e-3")}
_DROPOUT: Space = {"rate": ("0.3", "0.5", "0.65"), **_RATES}
_AWD: Space = {"rate": ("0.3", "0.45", "0.6"), "model.dropout.weights": ("0.2", "0.5"), **_RATES}
_PLACES = ("model.dropout.embedding", "model.dropout.between", "model.dropout.output")
_AWD_SET = (
    "model.dropout.locked=true", "model.dropout.words=0.1", "model.penalty.activation=2",
    "model.penalty.temporal=1", "trainer.random_window.std=5",
)  # fmt: skip
_AVERAGED = (
    "schedule=constant", "trainer.averaging.kind=mean", "trainer.averaging.nonmonotone=3",
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One line of the ablation that is trained.

    Attributes:
        space: values to draw from by field; `rate` stands for the three places of dropout.
        expected_below: the condition that it should beat.
    """

    overrides: tuple[str, ...] = ()
    space: Space = field(default_factory=dict)
    expected_below: str | None = None


CONDITIONS: dict[str, Condition] = {
    "no dropout": Condition(("model.dropout.embedding=0", "model.dropout.output=0"), _RATES),
    "dropout": Condition((), _DROPOUT, "no dropout"),
    "AWD set": Condition(_AWD_SET, _AWD, "dropout"),
    "AWD set + averaging": Condition((*_AWD_SET, *_AVERAGED), _AWD, "AWD set"),
    "Mogrifier, AWD set + averaging": Condition(
        (*_AWD_SET, *_AVERAGED, "model=mogrifier", "model.rounds=4", "model.rank=32"),
        _AWD, "AWD set + averaging",
    ),
}  # fmt: skip
BEST = "AWD set + averaging"
NGRAM = "n-gram (modified Kneser-Ney, order 5)"
# Methods of evaluation on the runs of BEST: label → key in the table of `lm evaluate`.
METHODS = {
    "+ cache": "cache",
    "+ dynamic evaluation": "dynamic",
    "+ dynamic evaluation + cache": "dynamic+cache",
}


@dataclass(frozen=True)
class Bench:
    """Where and how long everything runs."""

    folder: Path
    data_root: str
    parameters: str
    epochs: int
    trials: int
    seeds: tuple[int, ...]

    @property
    def source(self) -> list[str]:
        (train,) = Path(self.data_root).glob("*train.txt")
        size = train.stat().st_size
        return [f"data.root={self.data_root}", f"data.train_bytes={size // 10}"]

    def lm(self, *arguments: str) -> None:
        """Call `lm` in a process of its own, its words in a log."""
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "lm", *arguments]
            subprocess.run(command, check=True, stdout=log, stderr=log)

    def train(self, name: str, overrides: Iterable[str]) -> Path:
        """The finished run of that name: trained, continued, or as it is."""
        folder = self.folder / name
        found = sorted(folder.glob("*/summary.json"))
        for summary in found:
            if json.loads(summary.read_text(encoding="utf-8"))["status"] == "done":
                return summary.parent
        stopped = [s.parent for s in found if any((s.parent / "checkpoints").glob("step-*"))]
        if stopped:
            self.lm("train", f"resume={stopped[-1]}")
            return stopped[-1]
        self.lm("train", *self.source, *overrides, f"runs={self.folder}", f"name={name}")
        return max(folder.iterdir())

    def neural(self, condition: Condition, drawn: Iterable[str], seed: int) -> list[str]:
        """The overrides of a run."""
        chosen = merged(COMMON, condition.overrides, drawn)
        limits = [f"trainer.max_epochs={self.epochs}", f"model.parameters={self.parameters}"]
        return [*chosen, *limits, f"seed={seed}"]


def merged(*layers: Iterable[str]) -> list[str]:
    """Overrides by key, the last one counting; groups before the fields in them."""
    values = {item.partition("=")[0]: item for layer in layers for item in layer}
    return sorted(values.values(), key=lambda item: "." in item.partition("=")[0])


def draws(space: Space, count: int) -> list[list[str]]:
    """`count` points of a space, or as many as it has: a Latin hypercube.

    Every value of a field comes about equally often, so that no condition wins by luck in what it
    drew, and fields that conditions share are paired in the same way.
    """
    count = min(count, math.prod(len(values) for values in space.values()))
    points: list[list[str]] = [[] for _ in range(count)]
    for name, values in space.items():
        column = [values[k % len(values)] for k in range(count)]
        random.Random(name).shuffle(column)
        names = _PLACES if name == "rate" else (name,)
        for point, value in zip(points, column, strict=True):
            point += [f"{place}={value}" for place in names]
    return points


def best_loss(run: Path) -> float:
    """The lowest validation loss of a run; infinite if it never had one."""
    loss = json.loads((run / "summary.json").read_text(encoding="utf-8"))["best_valid_loss"]
    return math.inf if loss is None else float(loss)


def slug(name: str) -> str:
    """A folder's name."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def train_all(bench: Bench, workers: int) -> dict[str, list[Path]]:
    """The runs of every condition with its best trial's settings, one for each seed."""
    with ThreadPoolExecutor(workers) as pool:
        trials = {
            name: [
                (point, pool.submit(
                    bench.train, f"{slug(name)}/trial_{k}", bench.neural(condition, point, 1)
                ))
                for k, point in enumerate(draws(condition.space, bench.trials))
            ]
            for name, condition in CONDITIONS.items()
        }  # fmt: skip
        final = {}
        for name, runs in trials.items():
            chosen = min(runs, key=lambda trial: best_loss(trial[1].result()))[0]
            print(f"{name}: {' '.join(chosen)}", flush=True)
            final[name] = [
                pool.submit(
                    bench.train, f"{slug(name)}/seed_{seed}",
                    bench.neural(CONDITIONS[name], chosen, seed),
                )
                for seed in bench.seeds
            ]  # fmt: skip
        return {name: [run.result() for run in runs] for name, runs in final.items()}


def evaluated(bench: Bench, run: Path, *arguments: str) -> dict[str, Any]:
    """The test split's table of `lm evaluate`, kept beside the run."""
    words = [argument.partition("=")[0] for argument in arguments]
    path = run / f"{'_'.join(['evaluation', *words])}.json"
    if not path.exists():
        more = (*arguments, "runtime.threads=1", f"output={path}")
        bench.lm("evaluate", f"run={run}", "splits=[test]", *more)
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["test"]
    return table


def results(bench: Bench, workers: int) -> dict[str, list[float]]:
    """Test perplexities by line of the table."""
    ngram = bench.train("ngram", ["data=ptb", "tokenizer=word", "model=ngram"])
    runs = train_all(bench, workers)

    def tables(runs: list[Path], *arguments: str) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda run: evaluated(bench, run, *arguments), runs))

    found = {
        name: [table["perplexity"] for table in tables(of)]
        for name, of in runs.items()
    }  # fmt: skip
    every = tables(runs[BEST], "method=all")
    for label, method in METHODS.items():
        found[f"{BEST} {label}"] = [table["methods"][method]["perplexity"] for table in every]
    found[NGRAM] = [evaluated(bench, ngram)["perplexity"]]
    mixed = tables(runs[BEST], f"interpolate=[{ngram}]")
    found[f"{BEST} + n-gram"] = [mixture(table)["perplexity"] for table in mixed]
    return found


def mixture(table: dict[str, Any]) -> dict[str, Any]:
    """The line of the static model mixed with others."""
    lines: dict[str, dict[str, Any]] = table["methods"]
    return next(line for name, line in lines.items() if name == "static+interpolated")


def expectations() -> list[tuple[str, str]]:
    """Pairs (line, line that it should be below)."""
    trained = [(name, c.expected_below) for name, c in CONDITIONS.items() if c.expected_below]
    methods = [(f"{BEST} {label}", BEST) for label in METHODS]
    both = f"{BEST} + n-gram"
    return [*trained, *methods, (BEST, NGRAM), (both, BEST), (both, NGRAM)]


def standard_error(values: list[float]) -> float:
    """Of the mean over seeds; 0 for a single value, which then is one without chance."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def document(found: dict[str, list[float]], bench: Bench) -> str:
    """The table, and each expectation with its verdict."""
    lines = [
        "# Ablation on the first tenth of the Penn Treebank", "",
        f"About {bench.parameters} parameters each, at most {bench.epochs} epochs (stopped after "
        f"{PATIENCE} without improvement), {bench.trials} tuning trials per condition, then "
        f"{len(bench.seeds)} seeds; test perplexity, static unless said, of the weights that were "
        "best on validation. Words outside the tenth's vocabulary are `<unk>`, so the numbers "
        "compare with each other only.", "",
        f"By `scripts/ablation.py`, {datetime.date.today()}, torch {torch.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores, one thread a run.", "",
        "| condition | test perplexity | s.d. |", "|---|---|---|",
    ]  # fmt: skip
    for name, values in found.items():
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "n/a"
        lines.append(f"| {name} | {statistics.mean(values):.2f} | {spread} |")
    lines += ["", "| expected | difference ± standard error | met |", "|---|---|---|"]
    for name, other in expectations():
        change = statistics.mean(found[name]) - statistics.mean(found[other])
        error = math.hypot(standard_error(found[name]), standard_error(found[other]))
        met = "yes" if change < 0 else "**no**"
        if abs(change) < 2 * error:
            met += ", within the noise"
        lines.append(f"| {name} below {other} | {change:+.2f} ± {error:.2f} | {met} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing, evaluate, and write the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", required=True, help="folder with the PTB splits")
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--parameters", default="2.5M")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        given.folder, given.data_root, given.parameters, given.epochs, given.trials,
        tuple(given.seeds),
    )  # fmt: skip
    found = results(bench, given.workers)
    given.output.mkdir(parents=True, exist_ok=True)
    text = document(found, bench)
    (given.output / "ablation.md").write_text(text, encoding="utf-8")
    content = json.dumps({"test_perplexity": found, "argv": sys.argv[1:]}, indent=1)
    (given.output / "ablation.json").write_text(content + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
