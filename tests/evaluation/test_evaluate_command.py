"""`lm evaluate` as a user calls it: every method, comparisons, mixtures, the audit, mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest

from lm.cli import main
from lm.config import EvaluateConfig, compose, parse, path_lists, prepare
from lm.models import RecurrentModel

TEXT = "".join(
    f"the {noun} {verb} the {thing} .\n"
    for _ in range(28)
    for noun in ("cat", "dog", "bird")
    for verb in ("sees", "likes")
    for thing in ("mat", "log", "tree")
)
RECIPE = [
    "data=text", "tokenizer=word", "model.embedding_size=8", "model.hidden_size=10",
    "trainer.batch_size=4", "trainer.window=12", "trainer.max_steps=12", "trainer.valid_every=12",
    "trainer.valid_streams=2", "trainer.sample_tokens=0", "trainer.test=false",
    "schedule=constant", "optim.lr=0.01", "runtime.device=cpu", "data.valid_fraction=0.15",
    "data.test_fraction=0.3",
]  # fmt: skip
LISTS = path_lists(EvaluateConfig)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of one vocabulary, oddly named, and one of another."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(TEXT)
        Path("other.txt").write_text(TEXT.replace("cat", "cow hen"))
        for name, seed, text in (("a", 1, "text"), ("b, c=d", 2, "text"), ("other", 1, "other")):
            named = [f"name={name}", f"seed={seed}", f"data.path={text}.txt"]
            assert main(["train", *RECIPE, *named]) == 0
            (run,) = Path("runs", name).iterdir()
            run.rename(Path(name))
    return folder


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def evaluate(*overrides: str, code: int = 0) -> dict[str, Any]:
    """The JSON of `lm evaluate run=a`."""
    Path("scores.json").unlink(missing_ok=True)
    arguments = ["evaluate", "run=a", "output=scores.json", "bootstrap.resamples=200"]
    assert main([*arguments, *overrides]) == code
    if code:
        assert not Path("scores.json").exists()
        return {}
    content: dict[str, Any] = json.loads(Path("scores.json").read_text())
    return content


def test_static_stays_a_line_with_an_interval(capsys: pytest.CaptureFixture[str]) -> None:
    content = evaluate("splits=[test,valid]")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("test  loss ")
    assert "(exact; " in first
    assert "  95 % interval " in first
    assert first.endswith("blocks of 50 tokens)")
    assert second.startswith("valid  loss ")
    assert list(content) == ["test", "valid"]
    assert content["test"]["interval"][0] < content["test"]["perplexity"]


def test_all_methods_and_a_mixture_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    content = evaluate(
        "method=all", "interpolate=['b, c=d']",
        "cache.window=60", "dynamic.lr=1e-4", "dynamic.segment=20", "tune_tokens=200",
    )  # fmt: skip
    methods = content["test"]["methods"]
    plain = ["static", "temperature", "cache", "dynamic", "dynamic+cache"]
    assert list(methods) == [*plain, *(f"{name}+interpolated" for name in plain)]
    assert methods["dynamic"]["values"]["lr"] == 1e-4
    assert methods["dynamic"]["tuned_on"] == "the first 200 tokens of valid"
    weights = methods["cache+interpolated"]["values"]
    assert set(weights) == {"cache", "b, c=d"}
    assert sum(weights.values()) == pytest.approx(1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:12]] == list(methods)
    losses = {name: row["loss"] for name, row in methods.items()}
    assert losses["cache"] < losses["static"]


def test_a_comparison_with_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    content = evaluate("against=b, c=d")
    found = content["test"]["to_rival"]
    theirs = main(["evaluate", "run=b, c=d", "output=theirs.json"])
    assert theirs == 0
    loss = json.loads(Path("theirs.json").read_text())["test"]["loss"]
    assert found["difference"] == pytest.approx(content["test"]["loss"] - loss)
    assert 0 < found["p_value"] <= 1
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("test  static: ")
    assert " nats per token to b, c=d  (95 % " in line
    assert line.endswith((": a is better", ": b, c=d is better", ": no clear difference"))


def test_resets_by_line_resample_lines() -> None:
    content = evaluate("unit=line", "method=cache", "cache.theta=1", "cache.weight=0.1")
    assert content["test"]["resampled"].endswith(" lines")
    assert content["test"]["methods"]["cache"]["tuned_on"] is None


def test_the_audit_passes_or_ends_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate("audit=true")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:8]] == ["PASS  "] * 8
    whole = RecurrentModel.log_prob

    def log_prob(self: RecurrentModel, *arguments: Any, **named: Any) -> Any:
        log_p, state = whole(self, *arguments, **named)
        return log_p + 0.1, state

    monkeypatch.setattr(RecurrentModel, "log_prob", log_prob)
    evaluate("audit=true", code=8)
    said = capsys.readouterr()
    assert "FAIL  normalisation: " in said.out
    assert "loss 1" not in said.out
    assert "lm: error: 2 of 8 checks failed: normalisation, loss" in said.err


@pytest.mark.parametrize(
    ("overrides", "code", "cause"),
    [
        (["method=dynamc"], 2, "method must be one of static, temperature, cache, dynamic"),
        (["method=cache", "cache.window=0"], 2, "cache.window must be >= 1, got 0"),
        (["method=dynamic", "dynamic.rule=adam"], 2, "dynamic.rule must be one of sgd, rms"),
        (["dynamic.lr=0.1"], 2, "dynamic.* has no effect with method=static"),
        (["method=dynamic", "cache.theta=1"], 2, "cache.* has no effect with method=dynamic"),
        (["method=cache", "temperature=2"], 2, "temperature has no effect with method=cache"),
        (["temperature=0"], 2, "temperature must be a finite number > 0, got 0.0"),
        (["method=cache", "streams=4"], 2, "streams=4 is an approximation, which method=cache"),
        (["interpolate=[a]", "streams=4"], 2, "streams=4 is an approximation"),
        (["interpolate=[]"], 2, "len(interpolate) must be >= 1, got 0"),
        (["tune_tokens=9"], 2, "tune_tokens=9, but method=static has nothing to tune"),
        (["method=all", "tune_tokens=0"], 2, "tune_tokens must be >= 1, got 0"),
        (["bootstrap.resamples=1"], 2, "bootstrap.resamples must be >= 100, got 1"),
        (["cache.widow=3"], 2, "unknown field cache.widow; nearest: cache.window"),
        (["against=nowhere"], 4, "no run or checkpoint at nowhere"),
        (["against=other"], 4, "against=other has another vocabulary than a"),
        (["interpolate=[b,other]"], 4, "no run or checkpoint at b"),
        (["interpolate=other"], 4, "interpolate=other has another vocabulary than a"),
        (["method=cache", "data=text", "data.test=text.txt"], 3, "text has no valid split"),
    ],
)
def test_mistakes_are_said(
    overrides: list[str], code: int, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(*overrides, code=code)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("lm: error: ")]
    assert cause in line
    assert error.splitlines()[-1].startswith("  ")


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        ("runs/a", ["runs/a"]),
        ("runs/a, b", ["runs/a, b"]),
        ("[runs/a,runs/b c]", ["runs/a", "runs/b c"]),
        ("[ a , b=c,d(1) ]", ["a", "b=c", "d(1)"]),
        ("['x, y',\"it's\",z]", ["x, y", "it's", "z"]),
        (r"['it\'s',${x}]", ["it's", "${x}"]),
        ("['a' b]", ["'a' b"]),
        ("a]", ["a]"]),
        ("[]", []),
    ],
)
def test_paths_of_a_list_survive(typed: str, paths: list[str]) -> None:
    config = compose("evaluate", ["run=r", prepare(f"interpolate={typed}", lists=LISTS)])
    if not paths:
        assert list(config.interpolate) == []
        return
    assert parse(config, EvaluateConfig).interpolate == paths


def test_other_ways_to_name_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/somewhere")
    overrides = [
        "run=r",
        prepare("interpolate=[${oc.env:PLACE}/x,y]", lists=LISTS),
        prepare("against=a=b, c"),
    ]
    config = parse(compose("evaluate", overrides), EvaluateConfig)
    assert config.interpolate == ["/somewhere/x", "y"]
    assert config.against == "a=b, c"
    assert prepare("interpolate=null", lists=LISTS) == "interpolate=null"
    swept = prepare("interpolate=choice([a],[b])", lists=LISTS, sweep=True)
    assert swept == "interpolate=choice([a],[b])"


def test_gradients_are_collected_on_the_text_that_was_trained_on() -> None:
    assert main(["train", *RECIPE, "name=cut", "data.path=text.txt", "data.train_bytes=3000"]) == 0
    (run,) = Path("runs", "cut").iterdir()
    given = ["dynamic.lr=1e-3", "dynamic.decay=0.01", "dynamic.segment=25"]
    assert main(["evaluate", f"run={run}", "method=dynamic", *given]) == 0


def test_numbers_repeat_to_the_last_bit() -> None:
    overrides = ["method=dynamic_cache", "dynamic.lr=1e-3", "dynamic.decay=0.01", "cache.theta=1"]
    overrides += ["dynamic.segment=25", "dynamic.statistics_tokens=1000"]
    first, second = (evaluate(*overrides, "cache.weight=0.1") for _ in range(2))
    assert first == second
