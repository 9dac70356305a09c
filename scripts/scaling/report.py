"""The tables of docs/scaling.md."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lm.training.communication import WireType
from scaling import measured, published
from scaling.hardware import H100, LINKS, Link
from scaling.model import DEVICE_HOURS_TO_FAILURE, best_goodput, efficiency, predict
from scaling.traffic import Message, Setting, counted, messages, summary, wire

SIZES = (1, 8, 64, 512, 4096)
VOCABULARIES = (10_000, 267_735, 1_000_000)
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {}, "bf16": {"dtype": WireType.bf16}, "PowerSGD": {"rank": 4}, "split": {"split": True},
}  # fmt: skip
RANKS = 1024
_SMALL: dict[str, Any] = {"vocab_size": 3_000, "hidden_size": 64, "window": 2}
COUNTED = {
    "fp32, untied": Setting(**_SMALL),
    "fp32, tied": Setting(**_SMALL, tied=True),
    "bf16, tied": Setting(**_SMALL, tied=True, dtype=WireType.bf16),
    "PowerSGD, rank 4, tied": Setting(**_SMALL, tied=True, rank=4),
    "split, tied": Setting(**_SMALL, tied=True, split=True),
}
# Seconds from a failure to the first new step, and bytes/s to the disk: assumed. The share of a
# write that holds training up in the background is measured (docs/reliability/costs.json).
RESTART, DISK, BEHIND = 300.0, 1e9, 0.0032 / 0.0802


def large(vocab_size: int, streams: int = 64) -> Setting:
    """The model of the predictions: two layers of 1,024, tied, windows of 70."""
    return Setting(vocab_size, 1024, tied=True, streams=streams, window=70)


def sections(record: dict[str, Any]) -> dict[str, list[str]]:
    """By name, all that is computed and not counted."""
    return {
        "calibration": _calibration(record), "published": _published(), "rates": _rates(),
        "ways": _ways(), "wire": _wire(), "same batch": _same_batch(), "goodput": _goodput(),
    }  # fmt: skip


def written(page: str, found: dict[str, list[str]]) -> str:
    """The page with these sections between their marks."""
    for name, lines in found.items():
        mark = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
        assert mark.search(page), f"no place for {name!r}"
        text = "\n".join(["", *lines, "", ""])
        page = mark.sub(lambda match, text=text: match[1] + text + match[2], page)  # type: ignore[misc]
    return page


def traffic() -> list[str]:
    """Counted in the fake group, beside the formulas."""
    rows = []
    for name, setting in COUNTED.items():
        real, formula = counted(setting, RANKS), messages(setting, RANKS)
        pairs = [sorted((m.kind, m.nbytes) for m in found) for found in (real, formula)]
        sums = "; ".join(f"{n} {kind}, {b:,} B" for kind, (n, b) in sorted(summary(real).items()))
        rows.append((name, sums, "each message" if pairs[0] == pairs[1] else "differs"))
    return _table(("exchange", "collectives and bytes handed in", "formula agrees"), rows)


def _calibration(record: dict[str, Any]) -> list[str]:
    ours = measured.predicted(record)
    rows = [
        (
            name,
            f"{1e3 * seconds:.0f}",
            f"{1e3 * ours[name]:.0f}",
            f"{ours[name] / seconds - 1:+.0%}",
        )
        for name, seconds in record["together"].items()
    ]
    return [
        f"{record['date']}, torch {record['torch']}, {record['cores']} cores with a load of"
        f" {record['load']:.1f} by others, least of {record['rounds']} turns."
        f" Link: latency {1e6 * record['alpha_seconds']:.0f} µs,"
        f" {record['bytes_per_second'] / 1e9:.2f} GB/s."
        f" A process alone: {1e3 * record['alone']:.0f} ms a step.",
        "",
        *_table(("exchange of two processes", "ms, measured", "ms, predicted", "error"), rows),
    ]


def _published() -> list[str]:
    rows = [
        (p.what, f"{p.measured:g} {p.unit}", f"{p.predicted:.1f}", f"{p.error:+.0%}", p.source)
        for p in published.points()
    ]
    rest = [(what, f"{share:.0%}") for what, share in published.NOT_PREDICTED]
    return [
        *_table(("run", "published", "predicted", "error", "from"), rows),
        "",
        f"Fitted: {published.RATE / 1e3:,.1f}k characters/s of a V100,"
        f" {published.utilisation():.0%} of its 125 TFLOP/s."
        " Of a step the exchange takes, in ms, by the figure and as predicted:",
        "",
        *_table(("run", *(f"{size} V100" for size in published.GPUS)), _exchanges()),
        "",
        *_table(("published, without all that a prediction needs", "efficiency"), rest),
    ]


def _exchanges() -> Iterable[tuple[str, ...]]:
    for (model, link), figure in published.FIGURE.items():
        cells = []
        for size, worth in zip(published.GPUS, figure, strict=True):
            both = (worth, published.speed_up(model, link, size))
            ms = [1e3 * published.exchange_seconds(model, size, w) for w in both]
            cells.append(f"{ms[0]:.0f}, {ms[1]:.0f}")
        yield (f"{model}, {link.name}", *cells)


def _cells() -> Iterable[tuple[int, Link, Setting]]:
    return ((v, link, large(v)) for v in VOCABULARIES for link in LINKS)


def _rates() -> list[str]:
    rows = []
    for words, link, setting in _cells():
        steps = [predict(setting, H100, link, size) for size in SIZES]
        shares = [efficiency(setting, H100, link, size) for size in SIZES]
        cells = [f"{short(s.rate)} ({e:.0%})" for s, e in zip(steps, shares, strict=True)]
        rows.append((f"{words:,}", link.name, *cells))
    return _table(("V", "link outside the node", *_sizes()), rows)


def _ways() -> list[str]:
    rows = []
    for words, link, setting in _cells():
        cells = []
        for size in SIZES[1:]:
            by_way = {
                way: efficiency(replace(setting, **fields), H100, link, size)
                for way, fields in WAYS.items()
            }
            best = max(by_way, key=lambda way: by_way[way])
            cells.append(f"{best} {by_way[best]:.0%}")
        rows.append((f"{words:,}", link.name, *cells, _split_pays(setting, link)))
    heads = ("V", "link outside the node", *_sizes()[1:], "split beats fp32 up to")
    return _table(heads, rows)


def _split_pays(setting: Setting, link: Link) -> str:
    split = replace(setting, split=True)
    sizes = [
        size for size in (2**n for n in range(1, 13))
        if predict(split, H100, link, size).rate > predict(setting, H100, link, size).rate
    ]  # fmt: skip
    return f"{max(sizes):,} GPUs" if sizes else "never"


def _wire() -> list[str]:
    rows = []
    for words in VOCABULARIES:
        for way, fields in WAYS.items():
            setting = replace(large(words), **fields)
            sums = [_sent(messages(setting, size), size) for size in SIZES[1:]]
            rows.append((f"{words:,}", way, *(_bytes(n) for n in sums)))
    return _table(("V", "exchange", *_sizes()[1:]), rows)


def _sent(found: Iterable[Message], size: int) -> float:
    return sum(wire(message, size) for message in found)


def _same_batch() -> list[str]:
    rows = []
    for words in VOCABULARIES:
        cells = []
        for size in SIZES:
            setting = large(words, max(SIZES) // size)
            step = predict(setting, H100, LINKS[0], size)
            cells.append(f"{short(step.rate)}, {1e3 * step.seconds:.1f} ms")
        rows.append((f"{words:,}", *cells))
    return _table(("V", *_sizes()), rows)


def _goodput() -> list[str]:
    setting = large(VOCABULARIES[1])
    write = 4 * setting.parameters / DISK
    rows = []
    for size in SIZES:
        between = DEVICE_HOURS_TO_FAILURE / size
        found = [best_goodput(size, seconds, RESTART) for seconds in (write, write * BEHIND)]
        share = found[1][1] * efficiency(setting, H100, LINKS[0], size)
        cells = [f"{interval / 60:,.1f} min, {good:.2%}" for interval, good in found]
        rows.append((f"{size:,}", f"{between:,.0f} h", *cells, f"{share:.1%}"))
    heads = ("GPUs", "between failures", "saving holds training up", "in the background",
             "x efficiency, fp32, InfiniBand")  # fmt: skip
    return [
        f"Checkpoints of {4 * setting.parameters / 1e9:.1f} GB (V {setting.vocab_size:,}), Young's"
        " interval and the goodput with it.",
        "",
        *_table(heads, rows),
    ]


def _sizes() -> tuple[str, ...]:
    return tuple(f"{size:,} GPU{'s' if size > 1 else ''}" for size in SIZES)


def short(rate: float) -> str:
    """Three digits."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= scale:
            return f"{rate / scale:.3g}{unit}"
    return f"{rate:.3g}"


def _bytes(count: float) -> str:
    return re.sub(r"([TGMk]?)$", r" \1B", short(count), count=1)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]
