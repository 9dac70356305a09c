"""The benchmark runs, compares equal things and reads the right way round; not how fast."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


PROCESSES = ("wt103_vocab", "start_up")
"""Rows that start processes, which takes most of the time."""


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_row_runs_and_the_json_is_well_formed(slow: bool) -> None:
    from benchmarks.rows import NAMES, TRAINING

    rows = [name for name in NAMES if slow or name not in PROCESSES]
    done = run(["--smoke", "--json", "--device", "cpu", "--rows", ",".join(rows)])
    assert done.returncode == 0, done.stderr
    results = {result["name"]: result for result in json.loads(done.stdout)}
    for name in rows:
        assert any(result.startswith(name) for result in results), f"nothing of {name}"
    for name, result in results.items():
        ours, textbook = result["ours"], result["textbook"]
        assert ours > 0 < textbook
        better = textbook / ours if result["unit"] in ("s", "MB") else ours / textbook
        assert result["ratio"] == pytest.approx(better), name
        assert name in done.stderr, "the table shows it too"
    for name in TRAINING.keys() & {*rows}:
        assert {name, f"{name}_fp32"} <= results.keys()
        assert f"{name}_bf16_equal" in done.stderr
        assert results[name]["unit"] == "tokens/s"
        assert results[name]["gflop"] > 0 < results[name]["fraction"]
    assert ("wt103_vocab_memory" in results) == slow
    if slow:
        assert results["wt103_vocab_memory"]["unit"] == "MB"


def test_an_unknown_row_is_one_line_that_lists_the_rows() -> None:
    from benchmarks.rows import NAMES

    done = run(["--rows", "ptb_2x200,nonsense"])
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "'nonsense'" in line
    assert all(name in line for name in NAMES)


def test_a_row_is_chosen_by_its_name_or_by_how_it_begins() -> None:
    from benchmarks.rows import NAMES, selected

    assert selected("ptb_2x650") == ["ptb_2x650"], "not ptb_2x650_b64 as well"
    assert selected("start,rnn,gru") == ["rnn_2x650", "gru_2x650", "start_up"]
    assert selected(None) == list(NAMES)
    with pytest.raises(ValueError, match="no row is called ''"):
        selected("")


@pytest.mark.parametrize(
    ("unit", "ours", "textbook", "ratio"),
    [("tokens/s", 30, 10, 3), ("MB/s", 10, 20, 0.5), ("MB", 500, 1000, 2), ("s", 4, 1, 0.25)],
)
def test_the_ratio_is_above_one_where_ours_is_better(
    unit: str, ours: float, textbook: float, ratio: float
) -> None:
    from benchmarks.result import Result

    result = Result("row", ours, textbook, unit, {"gflop": 3.5})
    assert result.ratio == ratio
    assert Result.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    "name", ["ptb_2x200", "ptb_2x650_locked", "char_1x512", "rnn_2x650", "gru_2x650", "awd_3x1150"]
)
def test_the_arithmetic_is_six_times_parameters_times_tokens(name: str) -> None:
    from benchmarks.products import Floor, gigaflop
    from benchmarks.rows import TRAINING
    from benchmarks.sides import build_ours

    row = replace(TRAINING[name].tiny(), hidden_size=12, embedding_size=9, tied=False)
    parameters = dict(build_ours(row).named_parameters())
    del parameters["embedding.weight"]
    in_products = sum(p.numel() for p in parameters.values() if p.ndim == 2)
    assert gigaflop(row) * 1e9 == pytest.approx(6 * in_products * row.tokens)
    assert Floor(row, torch.float32, torch.device("cpu")).share == pytest.approx(1)


@pytest.mark.parametrize("name", ["ptb_2x200", "ptb_2x650_locked", "gru_2x650", "rnn_2x650"])
def test_sides_that_differ_are_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import textbook, training
    from benchmarks.options import Options
    from benchmarks.result import MismatchError

    options = Options(device="cpu", kernels="torch", smoke=True)
    row = options.row(name)
    build = textbook.build
    assert training._check(row, options, native=False)

    def off_by_little(*arguments: object) -> torch.nn.Module:
        model = build(*arguments)
        with torch.no_grad():
            model.decoder.bias[0] += 0.1
        return model

    monkeypatch.setattr(textbook, "build", off_by_little)
    with pytest.raises(MismatchError, match=f"{name}: the fp32 loss of the same batch"):
        training._check(row, options, native=False)


def test_variants_take_turns_under_their_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import timing

    monkeypatch.setattr(timing, "system_allocation", nullcontext)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    seen: list[tuple[str, str]] = []

    def variant(name: str, products: str) -> timing.Variant:
        settings = timing.Settings({"mkldnn.matmul.fp32_precision": products})
        return timing.Variant(lambda: seen.append((name, matmul.fp32_precision)), settings)

    try:
        measured = timing.interleave(
            {"a": variant("a", "bf16"), "b": variant("b", "none")},
            timing.Budget(steps=5, seconds=0.0),
            torch.device("cpu"),
            timing.Turns(warm_up=2, settling=1, counted=3),
        )
    finally:
        matmul.fp32_precision = before
    a, b = ("a", "bf16"), ("b", "none")
    # Warm-up; a settling step and three that count; then b goes first, and two are left to count.
    assert seen == [a] * 2 + [b] * 2 + [a] * 4 + [b] * 4 + [b] * 3 + [a] * 3
    assert [len(timings.seconds) for timings in measured.values()] == [5, 5]


def test_the_report_says_what_was_measured_where_and_what_was_not(tmp_path: Path) -> None:
    from benchmarks.report import document, read_results
    from benchmarks.result import NotMeasured, Result

    here = {"device": "cpu", "CPU": "A processor", "cores": "2"}
    gpu = {"device": "cuda", "GPU": "A GPU", "CPU": "Another"}
    about = {"machine": here, "date": "2026-11-23", "command": "python scripts/benchmark.py"}
    old = Result("ptb_2x200", 10.0, 10.0, "tokens/s", about)
    new = Result("ptb_2x200", 35.0, 10.0, "tokens/s", about)
    missing = NotMeasured("ptb_2x200_bf16_equal", "no native bf16")
    text = document([old, missing, new], here, "")
    assert "**3.50**" in text
    assert "**1.00**" not in text, "the later result of the same row counts"
    assert "`ptb_2x200_bf16_equal` | not measured: no native bf16" in text
    assert "## A processor\n\nCores 2. Measured with" in text
    assert "    python scripts/benchmark.py  # 2026-11-23\n" in text
    assert "Not measured: no CUDA device" in text

    file = tmp_path / "gpu.json"
    result = Result("awd_3x1150", 2.0, 1.0, "tokens/s", {**about, "machine": gpu})
    file.write_text(json.dumps([result.to_json()]))
    text = document([*read_results(file), new], here, "")
    assert "## A GPU" in text
    assert "Not measured: no CUDA device" not in text
    file.write_text('[{"name": "ptb"}]')
    with pytest.raises(
        ValueError, match=r"cannot use .*gpu.json as results: a result lacks 'ours'"
    ):
        read_results(file)
