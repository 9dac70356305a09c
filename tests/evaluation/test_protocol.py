"""The protocol: tuned on validation text only, the test text read once by each method."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_problem import V, ids_of, model_of, store_of, text_of
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from lm.data.store import TokenStore
from lm.errors import ConfigError
from lm.evaluation.adaptation import DynamicConfig, Rule
from lm.evaluation.bootstrap import BootstrapConfig
from lm.evaluation.cache import CacheConfig
from lm.evaluation.exact import evaluate
from lm.evaluation.interpolation import Interpolated
from lm.evaluation.method import Static
from lm.evaluation.protocol import Protocol, Settings, Table, build_methods, measure, tune
from lm.evaluation.report import compare, describe, to_json
from lm.evaluation.text import Text
from lm.models import LanguageModel
from lm.models.base import State
from lm.models.language_model import Output

FEW = BootstrapConfig(resamples=200)
SETTINGS = Settings(
    window=64,
    num_streams=1,
    temperature=None,
    cache=CacheConfig(window=50),
    dynamic=DynamicConfig(rule=Rule.sgd, segment=20, decay=0.01),
    train=lambda: pytest.fail("training text is for rms"),
)


class CountingStore(TokenStore):
    """Notes which tokens are read, and when, in a list shared by several."""

    name = ""
    reads: list[tuple[str, int, int]]

    def __getitem__(self, positions: slice) -> NDArray[Any]:
        start, stop, _ = positions.indices(len(self))
        self.reads.append((self.name, start, stop))
        return super().__getitem__(positions)


def counting(text: Text, name: str, reads: list[tuple[str, int, int]]) -> Text:
    store = CountingStore(text.store.path, text.store.header)
    store.name, store.reads = name, reads
    return replace(text, name=name, store=store)


def table_of(model: LanguageModel, protocol: Protocol, text: Text, **changes: Any) -> Table:
    methods = build_methods(model, protocol, replace(SETTINGS, **changes))
    tune(methods, text)
    return measure(methods, text, FEW)


def test_the_test_text_is_read_once_by_each_method_and_after_tuning(tmp_path: Path) -> None:
    reads: list[tuple[str, int, int]] = []
    valid = counting(text_of(tmp_path, 200, seed=1), "valid", reads)
    test = counting(text_of(tmp_path, 301, seed=2), "test", reads)
    model = model_of(scale=2)
    methods = build_methods(model, Protocol.all, SETTINGS)
    other = Static(model_of("gru"), window=64, name="other")
    rivals = build_methods(model_of(scale=3), Protocol.all, SETTINGS)
    methods += [Interpolated(method, [other]) for method in methods]
    assert [method.name for method in methods[:5]] == [
        "static", "temperature", "cache", "dynamic", "dynamic+cache",
    ]  # fmt: skip
    for some in (methods, rivals):
        tune(some, valid)
        assert not any(method.needs_tuning for method in some)
    assert {name for name, _, _ in reads} == {"valid"}
    reads.clear()
    measure(methods, test, FEW, rivals)
    assert {name for name, _, _ in reads} == {"test"}
    times = torch.zeros(301, dtype=torch.int64)
    for _, start, stop in reads:
        times[start + 1 : stop] += 1  # as targets
    # Static, temperature, cache and the learning model for both of its methods, of each model; and
    # the model mixed in.
    assert set(times[1:].tolist()) == {9}


def test_only_what_is_missing_is_tuned(tmp_path: Path) -> None:
    given = {
        "temperature": 1.3,
        "cache": CacheConfig(theta=0.5, weight=0.1),
        "dynamic": DynamicConfig(rule=Rule.sgd, lr=0.1, decay=0.01),
    }
    methods = build_methods(model_of(), Protocol.all, replace(SETTINGS, **given))
    assert not any(method.needs_tuning for method in methods)
    table = measure(methods, text_of(tmp_path, 50), FEW)
    assert [row.values for row in table.rows] == [
        {},
        {"temperature": 1.3},
        {"theta": 0.5, "weight": 0.1},
        {"lr": 0.1, "decay": 0.01},
        {"theta": 0.5, "weight": 0.1},
    ]
    assert {row.tuned_on for row in table.rows} == {None}


@pytest.mark.parametrize(
    ("protocol", "names"),
    [
        (Protocol.static, ["static"]),
        (Protocol.temperature, ["static", "temperature"]),
        (Protocol.cache, ["static", "cache"]),
        (Protocol.dynamic, ["static", "dynamic"]),
        (Protocol.dynamic_cache, ["static", "dynamic", "dynamic+cache"]),
    ],
)
def test_each_method_stands_beside_static(protocol: Protocol, names: list[str]) -> None:
    assert [method.name for method in build_methods(model_of(), protocol, SETTINGS)] == names


def test_static_is_what_evaluate_gives_to_the_last_bit(tmp_path: Path) -> None:
    text, model = text_of(tmp_path, 500, units=[100, 300]), model_of()
    for num_streams in (1, 3):
        score = evaluate(model, text.store, num_streams=num_streams, window=64, unit=text.unit)
        method = Static(model, window=64, num_streams=num_streams)
        assert method.score(text) == score
        assert method.nats(text).sum().item() == pytest.approx(score.nats, rel=1e-12)
    # In the order of the text, whatever streams it is read in.
    beginnings = torch.tensor([0, 167, 333])
    torch.testing.assert_close(
        method.nats(text)[beginnings], direct(model, text)[beginnings], rtol=1e-5, atol=1e-5
    )


def direct(model: LanguageModel, text: Text) -> Float[Tensor, " N"]:
    """Nats of each target with nothing but the token before it."""
    ids = torch.from_numpy(text.store[0 : len(text.store)])
    return model(ids[None, :-1], ids[None, 1:]).nll[0].double()


def test_rows_are_compared_with_static_and_with_a_rival(tmp_path: Path) -> None:
    text = text_of(tmp_path, 2001, copies=80)
    methods = build_methods(model_of(scale=2), Protocol.cache, SETTINGS)
    rivals = build_methods(model_of("gru", scale=2), Protocol.cache, SETTINGS)
    for some in (methods, rivals):
        tune(some, text)
    table = measure(methods, text, FEW, rivals)
    static, cache = table.rows
    assert static.to_static is None
    assert cache.to_static is not None
    gain = cache.score.loss - static.score.loss
    assert cache.to_static.difference == pytest.approx(gain)
    assert gain < -0.1
    assert cache.to_static.p_value == pytest.approx(1 / 201)
    assert static.interval is not None
    assert static.interval.low < static.score.loss < static.interval.high
    for row, rival in zip(table.rows, rivals, strict=True):
        assert row.to_rival is not None
        wanted = row.score.loss - rival.score(text).loss
        assert row.to_rival.difference == pytest.approx(wanted)
    lines = compare(table, "ours", "theirs")
    assert [line.partition(":")[0] for line in lines] == ["toy  static", "toy  cache"]
    same = measure(methods, text, FEW, methods)
    assert all("+0.0000 nats" in line for line in compare(same, "ours", "theirs"))
    assert all(line.endswith("no clear difference") for line in compare(same, "ours", "theirs"))


def test_the_table_says_what_was_done(tmp_path: Path) -> None:
    text = text_of(tmp_path, 2001, copies=20)
    lines = describe(table_of(model_of(), Protocol.cache, text)).splitlines()
    assert lines[0].startswith("toy: 2,000 tokens, ")
    assert lines[0].endswith("intervals and p-values by resampling 40 blocks of 50 tokens")
    assert lines[1].split() == [
        "method",
        "perplexity",
        "95",
        "%",
        "interval",
        "bits/byte",
        "to",
        "static",
    ]
    assert lines[2].startswith("static  ")
    assert lines[3].startswith("cache  ")
    assert lines[3].endswith("(on toy)")
    short = describe(table_of(model_of(), Protocol.static, text_of(tmp_path, 100)))
    assert short.startswith("toy  loss ")
    assert short.endswith("95 % interval n/a: 2 blocks of 50 tokens are fewer than 20")


def test_json_has_every_number_and_no_infinity(tmp_path: Path) -> None:
    text = text_of(tmp_path, 2001)
    content = to_json(table_of(model_of(), Protocol.temperature, text))
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content["methods"]) == ["static", "temperature"]
    assert content["loss"] == content["methods"]["static"]["loss"]
    row = content["methods"]["temperature"]
    assert row["tuned_on"] == "toy"
    assert row["values"]["temperature"] > 0
    assert row["interval"][0] < row["perplexity"] < row["interval"][1]
    assert row["to_static"]["difference"] <= 0
    certain = model_of(scale=1e6)
    assert to_json(table_of(certain, Protocol.static, text))["perplexity"] is None


class Uniform(LanguageModel):
    """No recurrent network."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def initial_state(self, num_streams: int) -> State:
        return []

    def forward(
        self, tokens: Int[Tensor, "T B"], targets: Int[Tensor, "T B"], *_: Any, **__: Any
    ) -> Output:
        nll = torch.full(targets.shape, float(V)).log()
        return Output(nll.mean(), nll, [])

    def log_prob(
        self, tokens: Int[Tensor, "T B"], *_: Any, **__: Any
    ) -> tuple[Float[Tensor, "T B V"], State]:
        return torch.full((*tokens.shape, V), 1 / V).log(), []


@pytest.mark.parametrize("protocol", [Protocol.cache, Protocol.dynamic, Protocol.dynamic_cache])
def test_what_needs_a_recurrent_network_says_so(protocol: Protocol) -> None:
    with pytest.raises(ConfigError, match="need a recurrent network, and the model is a Uniform"):
        build_methods(Uniform(V), protocol, SETTINGS)


def test_all_is_all_that_a_model_has(tmp_path: Path) -> None:
    table = table_of(Uniform(V), Protocol.all, text_of(tmp_path, 60))
    assert [row.method for row in table.rows] == ["static", "temperature"]
    for row in table.rows:
        assert row.score.perplexity == pytest.approx(V)


def test_a_text_knows_how_much_of_it_is_meant(tmp_path: Path) -> None:
    text = Text("valid", store_of(tmp_path / "store", ids_of(100)))
    assert (text.num_targets, text.describe()) == (99, "valid")
    some = text.first(30)
    assert (some.num_targets, some.describe()) == (30, "the first 30 tokens of valid")
    parts = list(some.windows(8, "read"))
    assert [len(part.targets) for part in parts] == [8, 8, 8, 6]
    targets = torch.cat([part.targets for part in parts])[:, 0]
    assert torch.equal(targets, torch.from_numpy(text.store[1:31]))
    assert text.first(99) is text.first(None) is text
    assert some.beginning(10) is some
    assert text.beginning(10).num_targets == 10


def test_training_text_is_asked_for_by_rms_alone(tmp_path: Path) -> None:
    asked = []

    def train() -> Text:
        asked.append(1)
        return text_of(tmp_path, 50)

    for rule, times in ((Rule.sgd, 0), (Rule.rms, 1)):
        settings = replace(SETTINGS, dynamic=DynamicConfig(rule=rule), train=train)
        build_methods(model_of(), Protocol.static, settings)
        build_methods(model_of(), Protocol.dynamic, settings)
        assert len(asked) == times
