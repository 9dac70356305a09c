"""The scaling model: what it says is sent is sent, and it is right where the answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


@pytest.mark.parametrize("name", ["fp32, untied", "fp32, tied", "bf16, tied", "PowerSGD", "split"])
def test_the_formulas_say_what_a_real_step_sends(name: str) -> None:
    from scaling.report import COUNTED, RANKS
    from scaling.traffic import ALL_GATHER, Setting, counted, messages

    # Split: words that do not divide by the processes, and logits in two parts.
    split = Setting(300_001, 8, tied=True, streams=4, window=8, split=True)
    factored = replace(COUNTED["fp32, untied"], hidden_size=72, num_layers=3, rank=2)
    setting = {"split": split, "PowerSGD": factored}.get(name) or COUNTED[name]
    size = 48 if setting.split else RANKS
    pairs = [[(m.kind, m.nbytes) for m in found(setting, size)] for found in (counted, messages)]
    assert sorted(pairs[0]) == sorted(pairs[1])
    gathers = [kind for kind, _ in pairs[0] if kind == ALL_GATHER]
    assert len(gathers) == {"split": 4, "fp32, untied": 2, "PowerSGD": 2}.get(name, 0)


def test_collectives_take_as_long_as_by_hand() -> None:
    from scaling.hardware import Link
    from scaling.traffic import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, Message

    link = Link("x", inside=100.0, outside=40.0, inside_alpha=0.0, outside_alpha=0.0, per_node=4,
                peer_seconds=0.0)  # fmt: skip
    assert link.seconds(Message(ALL_REDUCE, 800), 4) == pytest.approx(2 * 800 * 3 / 4 / 100)
    assert link.seconds(Message(ALL_REDUCE, 800), 16) == pytest.approx(2 * 800 * 15 / 16 / 40)
    assert link.seconds(Message(ALL_GATHER, 80), 8) == pytest.approx(7 * 80 / 40)
    # Half of what each of four deals leaves the node, by its one network.
    assert link.seconds(Message(ALL_TO_ALL, 800), 8) == pytest.approx(4 * 400 / 40)
    slow = replace(link, inside_alpha=1.0, outside_alpha=10.0)
    assert slow.seconds(Message(ALL_REDUCE, 0), 16) == pytest.approx(2 * (2 * 1.0 + 2 * 10.0))


def test_the_last_gradient_cannot_be_hidden_and_the_others_are() -> None:
    from scaling.hardware import Link
    from scaling.model import Compute, exposed
    from scaling.traffic import ALL_GATHER, Message

    link = Link("x", inside=1.0, outside=1.0, inside_alpha=0.0, per_node=2)
    compute = Compute(forward=9.0, layer=5.0, num_layers=2, update=9.0)
    first, last = Message(ALL_GATHER, 4, ready=1), Message(ALL_GATHER, 4, ready=2)
    assert exposed([last, first], compute, link, 2) == pytest.approx(4.0)
    assert exposed([first, replace(first, nbytes=7)], compute, link, 2) == pytest.approx(6.0)
    assert exposed([first, replace(first, ready=None)], compute, link, 2) == pytest.approx(4.0)


def test_limits() -> None:
    from scaling.hardware import ETHERNET, H100, INFINIBAND
    from scaling.model import efficiency
    from scaling.report import large

    setting = large(10_000)
    assert efficiency(setting, H100, ETHERNET, 1) == 1.0
    # A ring sends no more than twice the gradient, however many take part, but α grows.
    shares = [efficiency(setting, H100, INFINIBAND, 8**n) for n in range(8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-2] - shares[-1] < 0.04
    free = replace(INFINIBAND, inside_alpha=0.0, outside_alpha=0.0)
    ends = [efficiency(setting, H100, free, 8**n) for n in (6, 7)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


def test_the_interval_of_young_is_the_best_and_failures_cost_what_is_known() -> None:
    from scaling.model import best_goodput, goodput, young

    assert young(2.0, 100.0) == 20.0
    around = [goodput(20.0 * x, 2.0, 0.0, 10_000.0) for x in (4.0, 8.0, 10.0, 12.0, 20.0)]
    assert max(around) == around[2]  # Young of these is 200
    assert goodput(100.0, 10.0, 0.0, 1e12) == pytest.approx(100 / 110)
    assert goodput(1e-6, 0.0, 50.0, 100.0) == pytest.approx(2.718281828**-0.5, rel=1e-6)
    values = [best_goodput(size, 1.0, 300.0)[1] for size in (1, 100, 10_000, 10**6)]
    assert 1.0 > values[0] > values[1] > values[2] > values[3] > 0.0


def test_what_others_measured_is_met_as_the_page_says() -> None:
    from scaling.published import points

    errors = {point.what: abs(point.error) for point in points()}
    far = {what for what, error in errors.items() if error > 0.061}
    assert all(what.startswith("mLSTM 4096, InfiniBand") or "epochs" in what for what in far)
    assert max(errors.values()) < 0.2


def test_the_page_is_what_the_model_says() -> None:
    import scaling_model
    from scaling.report import sections, written

    record = json.loads(scaling_model.RECORD.read_text(encoding="utf-8"))
    page = scaling_model.PAGE.read_text(encoding="utf-8")
    assert written(page, sections(record)) == page, "run scripts/scaling_model.py"
